"""localdisk: a CSI driver that keeps volumes and snapshots in a local directory.

    python -m adapters.localdisk --endpoint unix:///run/localdisk/csi.sock --state-dir /var/lib/localdisk

For the quick start, for tests and for single hosts. Snapshots share blocks with their volume where the file system
can (btrfs, xfs) and are copied, holes kept, where it cannot. As root, a cut is atomic under writes: volumes are btrfs
subvolumes, or images that stand still for the moment. Without root they are plain directories, and the driver says
in its manifest and its log that a cut is atomic only while nobody writes.

Volume parameters: `mode` (permissions of the root directory, octal). Snapshot parameters: `uploadSeconds` (ready only
so long after the cut). Group parameters: those, and `consistency: none`.

It must not import anything of the bridge but `bridge.pb`, or another adapter.
"""
