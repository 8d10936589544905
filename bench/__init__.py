"""Benchmarks: ours beside the incumbent in one run, as ratios and counts. Never part of the tests."""
