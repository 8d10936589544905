"""A root file system as data, and the tar that it becomes: sorted, one fixed time, owned by root.

The same tree gives the same bytes, wherever and whenever it is built.
"""

from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

EPOCH = 315532800
"""1980-01-01: the time of every file, of the image, and of nothing else."""


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A regular file; a Path is read when the tar is written."""

    content: bytes | Path
    mode: int = 0o644


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
    """A directory; those above a file need not be named."""

    mode: int = 0o755


Entry = File | Link | Folder


class Tree:
    """Paths without a leading slash, and what is there."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def put(self, path: str, entry: Entry) -> None:
        """Add one entry and the directories above it. ValueError when something else is there."""
        path = path.strip("/")
        before = self.entries.get(path)
        if before is not None and before != entry:
            raise ValueError(f"two different things for /{path}")
        self.entries[path] = entry
        for parent in list(PurePosixPath(path).parents)[:-1]:
            self.entries.setdefault(str(parent), Folder())

    def write(self, target: IO[bytes]) -> None:
        """The tar, to a binary file."""
        with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(self.entries):
                _add(archive, path, self.entries[path])


def plain_tar(target: IO[bytes], files: Mapping[str, bytes | Path]) -> None:
    """A tar of these files in this order: an archive, not a file system."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            _add(archive, name, File(content))


def _add(archive: tarfile.TarFile, path: str, entry: Entry) -> None:
    info = tarfile.TarInfo(path)
    info.mtime = EPOCH
    match entry:
        case Folder(mode):
            info.type, info.mode = tarfile.DIRTYPE, mode
            archive.addfile(info)
        case Link(target):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
            archive.addfile(info)
        case File(bytes() as content, mode):
            info.mode, info.size = mode, len(content)
            archive.addfile(info, io.BytesIO(content))
        case File(Path() as source, mode):
            info.mode, info.size = mode, source.stat().st_size
            with source.open("rb") as content:
                archive.addfile(info, content)
