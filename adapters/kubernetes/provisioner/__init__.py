"""The provisioner's shell: caches, turns and writes around the decisions in `decide`."""
