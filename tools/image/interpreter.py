"""This machine's Python as part of an image: the program, its standard library, and installed packages."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tools.image.tree import File, Link, Tree

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
STDLIB = f"usr/local/lib/{VERSION}"
PROGRAM = f"usr/local/bin/{VERSION}"
VENV = "opt/snapbridge"
SITE = f"{VENV}/lib/{VERSION}/site-packages"

_NO_STDLIB = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter",
    "turtledemo", "venv", "pydoc_data", "distutils", "LICENSE.txt",
}  # fmt: skip
_NO_MODULES = re.compile(
    r"_tkinter|_curses|readline|_gdbm|_dbm|nis|ossaudiodev|_test|_xx|xxlimited|_ctypes_test|_crypt\b"
)
_NO_FILES = re.compile(r"\.(pyc|pyi|pyx|pxd|c|h|cpp|a|whl|exe)$|/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$")
_UNUSED = re.compile(
    r"^kubernetes/(aio/)?(client/(models|api)/(?!__init__\.py)|docs/|e2e_test/)"
    r"|^(sqlalchemy|alembic)/testing/|^pygments/lexers/(?!__init__|_mapping|python)"
)
"""Parts of packages that are loaded on demand only, and never by us: 70 MB of classes, one per kind of object."""
_NAME = re.compile(r"[-_.]+")


def folders() -> tuple[Path, ...]:
    """What is copied as it is: libraries in there are found by the modules beside them."""
    return Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platlib"))


def add_python(tree: Tree) -> list[Path]:
    """The program and its standard library. Gives the files whose shared libraries are needed."""
    program = Path(sys.executable).resolve()
    tree.put(PROGRAM, File(program, 0o755))
    binaries = [program]
    stdlib = Path(sysconfig.get_path("stdlib"))
    for path in _files_below(stdlib):
        inside = path.relative_to(stdlib)
        if _NO_STDLIB & set(inside.parts) or inside.parts[0].startswith("config-"):
            continue
        if inside.parts[0] == "lib-dynload":
            if _NO_MODULES.match(inside.name):
                continue
            binaries.append(path)
        elif _NO_FILES.search(f"/{inside}"):
            continue
        _put(tree, f"{STDLIB}/{inside}", path)
    # A Python with a shared libpython loads its modules from a directory that has to be there.
    tree.put(f"{STDLIB}/lib-dynload/.keep", File(b""))
    return binaries


def add_venv(tree: Tree) -> None:
    """An environment around the program: a system's Python has site-packages only inside one."""
    numbers = ".".join(map(str, sys.version_info[:3]))
    config = f"home = /usr/local/bin\ninclude-system-site-packages = false\nversion = {numbers}\n"
    tree.put(f"{VENV}/pyvenv.cfg", File(config.encode()))
    tree.put(f"{VENV}/bin/python3", Link(f"/{PROGRAM}"))


def add_packages(tree: Tree, project: str) -> list[Path]:
    """What the project needs at run time, as installed here. Gives the files whose shared libraries are needed."""
    binaries = []
    for distribution in _closure(project):
        for file in distribution.files or ():
            inside = str(file)
            if inside.startswith("..") or "__pycache__" in inside or _NO_FILES.search(f"/{inside}"):
                continue
            path = Path(str(distribution.locate_file(file)))
            if _UNUSED.match(inside) or not path.is_file():
                continue
            if ".so" in path.suffixes:
                binaries.append(path)
            _put(tree, f"{SITE}/{inside}", path)
    return binaries


def add_sources(tree: Tree, root: Path, packages: tuple[str, ...], project: str) -> None:
    """The project itself, with what tells its version."""
    for package in packages:
        for path in _files_below(root / package):
            inside = path.relative_to(root)
            if "__pycache__" not in inside.parts and not _NO_FILES.search(f"/{inside}"):
                _put(tree, f"{SITE}/{inside}", path)
    about = importlib.metadata.distribution(project)
    folder = f"{SITE}/{project}-{about.version}.dist-info"
    tree.put(f"{folder}/METADATA", File((about.read_text("METADATA") or "").encode()))
    script = f"#!/{VENV}/bin/python3 -I\nfrom bridge.__main__ import main\n\nmain()\n"
    tree.put(f"{VENV}/bin/{project}", File(script.encode(), 0o755))


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path


def _put(tree: Tree, place: str, path: Path) -> None:
    tree.put(place, File(path.resolve(), 0o755 if ".so" in path.suffixes else 0o644))


def _closure(project: str) -> list[importlib.metadata.Distribution]:
    """The distributions that the project needs without extras of its own, by name."""
    from packaging.requirements import Requirement

    found: dict[str, importlib.metadata.Distribution] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(project, frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        distribution = importlib.metadata.distribution(name)
        if name != project:
            found[name] = distribution
        for text in distribution.requires or ():
            wanted = Requirement(text)
            cases = [{"extra": extra} for extra in ("", *sorted(extras))]
            if wanted.marker is None or any(wanted.marker.evaluate(case) for case in cases):
                waiting.append((_NAME.sub("-", wanted.name).lower(), frozenset(wanted.extras)))
    return [found[name] for name in sorted(found)]
