"""Builds the container image from this machine's Python and the locked packages. No registry takes part."""
