"""The fault campaign: the same stories against any stack, and what became of the snapshots in each.

leaked   on the backend, and no object of the cluster names it any more
doubled  more than one on the backend for one VolumeSnapshot
lost     reported ready and not on the backend, or gone without having been deleted
stuck    not ready, or not gone, long after the fault has ended
"""
