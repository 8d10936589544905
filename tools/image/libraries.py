"""Shared libraries: what the programs and modules of an image need from this machine, as its loader finds it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tools.image.tree import File, Tree

_FOUND = re.compile(r"^\s+(?P<name>\S+) => (?P<path>/\S+) \(0x[0-9a-f]+\)$")
_LOADER = re.compile(r"^\s+(?P<path>/\S+/ld-linux\S*|/\S+/ld64\S*) \(0x[0-9a-f]+\)$")
_MISSING = re.compile(r"^\s+(?P<name>\S+) => not found$")
_AT_ONCE = 50


class LibraryError(RuntimeError):
    """The image cannot be built on this machine; the text says why."""


def closure(programs: Iterable[Path], *, inside: Iterable[Path]) -> dict[str, Path]:
    """Name -> file of every library that these need, without those that lie `inside` what is copied anyway.

    The loader itself has its own absolute path as its name.
    """
    known = [folder.resolve() for folder in inside]
    found: dict[str, Path] = {}
    for line in _ldd(sorted(set(programs))):
        if missing := _MISSING.match(line):
            raise LibraryError(f"{missing['name']} is needed and is not on this machine")
        if loader := _LOADER.match(line):
            found[loader["path"]] = Path(loader["path"])
        elif library := _FOUND.match(line):
            path = Path(library["path"])
            if not any(path.resolve().is_relative_to(folder) for folder in known):
                found[library["name"]] = path
    if not any(name.startswith("/") for name in found):
        raise LibraryError("no dynamic loader was found: is this a system with glibc and ldd?")
    return found


def add(tree: Tree, libraries: dict[str, Path]) -> None:
    """Copy them to where the loader looks without any configuration: the C library's own directory."""
    folder = next(path for name, path in libraries.items() if name.startswith("libc.so")).parent
    for name, path in sorted(libraries.items()):
        place = name if name.startswith("/") else str(folder / name)
        tree.put(place, File(path.resolve(), 0o755))
        _add_copyright(tree, path.resolve())


def _ldd(programs: list[Path]) -> list[str]:
    ldd = shutil.which("ldd")
    if ldd is None:
        raise LibraryError("ldd is missing: install the package libc-bin")
    lines: list[str] = []
    for start in range(0, len(programs), _AT_ONCE):
        some = programs[start : start + _AT_ONCE]
        done = subprocess.run([ldd, *some], capture_output=True, text=True, check=False, env={"LC_ALL": "C"})
        lines += done.stdout.splitlines()
    return lines


def _add_copyright(tree: Tree, path: Path) -> None:
    """The licence text of the Debian package that a library is from, where dpkg knows it."""
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return
    for name in (path, Path(str(path).removeprefix("/usr"))):
        done = subprocess.run([dpkg, "--search", name], capture_output=True, text=True, check=False)
        package = done.stdout.partition(": ")[0].partition(",")[0].partition(":")[0]
        text = Path("/usr/share/doc") / package / "copyright"
        if done.returncode == 0 and text.is_file():
            tree.put(str(text), File(text.resolve()))
            return
