"""Announces CSI drivers to a real kubelet: several drivers from one process. gRPC is allowed here."""
