"""The test bed: the real servers that the tests run, each started by one function.

`python -m tests.support.bed build` builds them once into a cache. Everything listens on loopback,
except the kubelet, whose port asks for a client certificate, because a node's address may not be one.
"""
