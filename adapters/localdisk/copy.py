"""Copies files and directory trees: shared blocks where the file system can, holes kept where it cannot.

Trees may belong to workloads that change them meanwhile, so no symbolic link is ever followed: everything goes
through directory file descriptors. It must not decide whether a copy is consistent; see `cut`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_FICLONE = 0x40049409
_CHUNK_BYTES = 8 << 20
_CANNOT_SHARE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_NO_XATTR = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.ENODATA})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 400


def share_blocks(source: int, target: int) -> bool:
    """Makes `target` (a file descriptor) a reflink of `source`: atomic and at once. False where impossible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _CANNOT_SHARE:
            return False
        raise
    return True


def data_ranges(handle: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a file between two offsets that are not holes, as (offset, end offset)."""
    offset = start
    while offset < end:
        try:
            begin = os.lseek(handle, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if begin >= end:
            return
        offset = min(os.lseek(handle, begin, os.SEEK_HOLE), end)
        yield begin, offset


def copy_content(source: int, target: int, size: int) -> None:
    """Copies `size` bytes between two open files; holes stay holes. `target` must be new."""
    if not share_blocks(source, target):
        for begin, end in data_ranges(source, 0, size):
            _copy_range(source, target, begin, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, begin: int, end: int) -> None:
    offset = begin
    while offset < end:
        count = min(end - offset, _CHUNK_BYTES)
        try:
            done = os.copy_file_range(source, target, count, offset, offset)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            done = os.pwrite(target, os.pread(source, count, offset), offset)
        if done == 0:
            return  # the file has become shorter meanwhile
        offset += done


def copy_file(source: Path, target: Path, *, durable: bool) -> None:
    """Copies one image. Raises FileExistsError, and OSError for anything the system refuses."""
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy_content(reader, writer, os.fstat(reader).st_size)
            if durable:
                os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def copy_tree(source: Path, target: Path, *, durable: bool) -> None:
    """Copies a directory with owners, modes, times, extended attributes, links and special files.

    What vanishes meanwhile is left out; other file systems mounted inside are left out too.
    """
    target.mkdir(mode=0o700)
    reader = os.open(source, _FOLDER)
    try:
        writer = os.open(target, _FOLDER)
    except BaseException:
        os.close(reader)
        raise
    with _Level.opened(reader, writer, "") as top:
        _TreeCopy(top=top, device=os.fstat(reader).st_dev, durable=durable).run()


@dataclass(slots=True)
class _Level(contextlib.AbstractContextManager["_Level"]):
    """A directory on the way down: its two descriptors, its path from the top, the names still to do."""

    reader: int
    writer: int
    path: str
    names: list[str]

    @classmethod
    def opened(cls, reader: int, writer: int, path: str) -> _Level:
        """Takes over both descriptors."""
        level = cls(reader, writer, path, [])
        try:
            with os.scandir(reader) as entries:
                level.names = [entry.name for entry in entries]
        except BaseException:
            level.__exit__()
            raise
        return level

    def __exit__(self, *_: object) -> None:
        os.close(self.reader)
        os.close(self.writer)


@dataclass(slots=True)
class _TreeCopy:
    """Goes down with a list of its own, because a workload may nest deeper than Python's stack."""

    top: _Level
    device: int
    durable: bool
    linked: dict[int, str] = field(default_factory=dict)

    def run(self) -> None:
        levels = [self.top]
        try:
            while levels:
                level = levels[-1]
                if not level.names:
                    self._finish(level)
                    levels.pop()
                    if level is not self.top:
                        level.__exit__()
                    continue
                with contextlib.suppress(FileNotFoundError):
                    inner = self._entry(level, level.names.pop())
                    if inner is not None:
                        levels.append(inner)
                if len(levels) > _DEEPEST:
                    raise OSError(errno.ELOOP, f"directories are nested more than {_DEEPEST} deep")
        finally:
            for level in levels[1:]:
                level.__exit__()

    def _finish(self, level: _Level) -> None:
        _copy_attributes(level.reader, level.writer)
        if self.durable:
            os.fsync(level.writer)

    def _entry(self, level: _Level, name: str) -> _Level | None:
        """Copies one entry. Returns the level to go down to if it is a directory."""
        status = os.stat(name, dir_fd=level.reader, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._subfolder(level, name)
        if status.st_nlink > 1 and status.st_ino in self.linked:
            earlier = self.linked[status.st_ino]
            os.link(earlier, name, src_dir_fd=self.top.writer, dst_dir_fd=level.writer, follow_symlinks=False)
            return None
        if stat.S_ISREG(status.st_mode):
            self._file(level.reader, level.writer, name)
        else:
            _copy_special(level.reader, level.writer, name, status)
        if status.st_nlink > 1:
            self.linked[status.st_ino] = f"{level.path}{name}"
        return None

    def _subfolder(self, level: _Level, name: str) -> _Level | None:
        inner = os.open(name, _FOLDER, dir_fd=level.reader)
        try:
            os.mkdir(name, 0o700, dir_fd=level.writer)
            made = os.open(name, _FOLDER, dir_fd=level.writer)
        except BaseException:
            os.close(inner)
            raise
        found = _Level.opened(inner, made, f"{level.path}{name}/")
        if os.fstat(inner).st_dev != self.device:
            found.names.clear()  # another file system is mounted here: it is not part of the volume
        return found

    def _file(self, reader: int, writer: int, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        inner = os.open(name, flags, dir_fd=reader)
        try:
            status = os.fstat(inner)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "replaced by something else meanwhile", name)
            made = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=writer)
            try:
                copy_content(inner, made, status.st_size)
                _copy_attributes(inner, made)
                if self.durable:
                    os.fsync(made)
            finally:
                os.close(made)
        finally:
            os.close(inner)


def _copy_special(reader: int, writer: int, name: str, status: os.stat_result) -> None:
    """Symbolic links, pipes, sockets and devices. Devices need root; without it they are refused by the system."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=reader), name, dir_fd=writer)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=writer)
    if os.geteuid() == 0:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=writer, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=writer)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=writer, follow_symlinks=False)


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
    for name in os.listxattr(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
