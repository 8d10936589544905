"""What the core needs from outside, as Protocols only. Contracts are in the docstrings; suites in tests/contract."""
