"""Group snapshots on Kubernetes: VolumeGroupSnapshot objects, their contents, and the members that they stand for."""
