"""The command `snapbridge`, and the only composition root: it hands the list of adapters to the rings inside."""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and end with its exit code. Ctrl-C while it still starts is no traceback either."""
    try:
        from bridge.cli.main import main as run

        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
