"""`python -m tests.support.bed build [NAME…]` builds the servers; `list` says what is built and where."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.support.bed import build, packages, process


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.bed", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    builder = verbs.add_parser("build", help="build servers into the cache; without names: all that the tests need")
    builder.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(build.PROGRAMS)}")
    verbs.add_parser("list", help="print each server, its version, and where its binary is")
    packager = verbs.add_parser("packages", help="install the Debian packages that the tests need (root)")
    packager.add_argument("--if-root", action="store_true", help="without root, only say what is missing")
    chosen = parser.parse_args()
    try:
        return _perform(chosen)
    except (process.MissingServerError, process.ServerError) as error:
        print(f"bed: {error}", file=sys.stderr)
        return 1


def _perform(chosen: argparse.Namespace) -> int:
    started = time.monotonic()
    if chosen.verb == "build":
        build.build(chosen.names or build.wanted())
        print(f"bed: servers ready after {time.monotonic() - started:.0f} s")
    elif chosen.verb == "packages":
        _install_packages(only_if_root=chosen.if_root)
    else:
        for name in build.PROGRAMS:
            path = build.cached(name)
            state = f"{path.stat().st_size / 1e6:.0f} MB" if path.exists() else "not built"
            print(f"{name:<24} {build.version(name):<9} {state:<10} {path}")
    return 0


def _install_packages(*, only_if_root: bool) -> None:
    if only_if_root and os.geteuid() != 0 and packages.missing():
        print(f"bed: not root: missing packages stay missing: {' '.join(packages.missing())}")
        print("bed: the tests that need root will fail; to leave them out: make test PYTEST_ARGS=\"-m 'not root'\"")
        return
    packages.install()


if __name__ == "__main__":
    sys.exit(main())
