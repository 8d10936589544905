"""The cluster half: VolumeSnapshots and their contents' specs. It never talks CSI; a driver half does that."""
