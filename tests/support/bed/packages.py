"""Debian packages that the tests need: installed once, by root, and only what is missing.

A program that the machine already has, from wherever, counts as there: nothing is replaced. Services
that a package would start (containerd) are not started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.bed import locks, process

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "runc": "runc",
    "busybox": "busybox-static",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "util-linux",
    "setpriv": "util-linux",
    "umount": "mount",
    "fsfreeze": "util-linux",
    "curl": "curl",
}
"""Program -> the Debian package that brings it."""

_SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"))
_POLICY = Path("/usr/sbin/policy-rc.d")


def program(name: str) -> Path:
    """The path of a system program. Raises MissingServerError naming the package when it is missing."""
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        package = PROGRAMS.get(name, name)
        raise process.MissingServerError(
            f"{name} is missing: run `python -m tests.support.bed packages` as root, or install the package {package}"
        )
    return Path(found)


def missing() -> list[str]:
    """The packages that would bring the programs that are not there."""
    absent = (package for name, package in PROGRAMS.items() if shutil.which(name, path=_SEARCH) is None)
    return sorted(set(absent))


def install() -> None:
    """Install what is missing with apt-get.

    Raises MissingServerError, and changes nothing, when this is not root or there is no apt-get.
    """
    if not missing():
        print("bed: all system packages are there")
        return
    with locks.held("packages"):
        wanted = missing()
        if not wanted:
            return
        names = " ".join(wanted)
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise process.MissingServerError(
                f"system packages are missing and only root with apt-get can install them: {names}; "
                "without root, deselect those tests: pytest -m 'not root'"
            )
        print(f"bed: installing {names}", flush=True)
        with _services_stay_down():
            if _apt("install", "--no-install-recommends", *wanted) != 0:
                _apt("update")
                if _apt("install", "--no-install-recommends", *wanted) != 0:
                    raise process.MissingServerError(f"apt-get could not install {names}: see its words above")


def _apt(*words: str) -> int:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(["apt-get", "-y", "-q", *words], env=environment, check=False).returncode


@contextlib.contextmanager
def _services_stay_down() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a service; 101 means no. An existing policy is left as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
