"""The test bed: the real servers that the tests run, each started by one function.

`python -m tests.support.bed build` builds them once into a cache. Everything listens on loopback,
except the kubelet, whose port asks for a client certificate, because a node's address may not be one.

=====================  ==========================================================================
module                 what it starts or gives
=====================  ==========================================================================
controlplane.running   etcd, API server, controller manager; kubectl, tokens, request counts
node.running           containerd and a kubelet that joins a control plane; pods and exec
localdisk.LocalDisk    our own CSI driver as a process
incumbent.running      snapshot-controller and csi-snapshotter
sanity.run             csi-sanity against a CSI socket, and its verdict
process.Process        any server: start, stop, kill, pause, restart, CPU time, memory, log
build                  binaries, and files of published modules that tests read
fixtures               the same for pytest: control_plane, own_control_plane, namespace, node …
=====================  ==========================================================================
"""
