"""snapbridge: the same CSI snapshots for Kubernetes, Nomad and plain hosts."""

__version__ = "0.1.0"
