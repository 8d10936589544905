"""The command `snapbridge`, and the only composition root: it hands the list of adapters to the rings inside."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end with its exit code."""
    from bridge.cli.main import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
