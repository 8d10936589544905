"""The driver half: upstream's csi-snapshotter. It knows VolumeSnapshotContents of one driver and their classes."""
