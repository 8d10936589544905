"""Copies are whole: attributes, links, holes; and a workload cannot lead them out of its volume."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from adapters.localdisk import btrfs, copy


def test_a_tree_is_copied_with_all_it_has(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "file").write_bytes(b"content")
    (source / "deep" / "er" / "file").chmod(0o640)
    os.utime(source / "deep" / "er" / "file", ns=(10**18, 10**18 + 1))
    (source / "deep").chmod(0o2750)
    (source / "link").symlink_to("deep/er/file")
    (source / "dangling").symlink_to("/nowhere")
    os.link(source / "deep" / "er" / "file", source / "hard")
    os.mkfifo(source / "pipe", 0o600)
    with (source / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"island")
    os.setxattr(source / "hard", "user.colour", b"red")
    os.utime(source / "deep", ns=(10**18, 10**18 + 2))

    copy.copy_tree(source, target, durable=True)

    assert (target / "deep" / "er" / "file").read_bytes() == b"content"
    status = (target / "deep" / "er" / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_nlink) == (0o640, 10**18 + 1, 2)
    assert (target / "hard").stat().st_ino == status.st_ino
    assert os.getxattr(target / "hard", "user.colour") == b"red"
    deep = (target / "deep").stat()
    assert (stat.S_IMODE(deep.st_mode), deep.st_mtime_ns) == (0o2750, 10**18 + 2)
    assert (target / "link").readlink() == Path("deep/er/file")
    assert (target / "dangling").readlink() == Path("/nowhere")
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
    sparse = (target / "sparse").stat()
    assert sparse.st_size == 64 << 20
    assert sparse.st_blocks * 512 < 1 << 20
    assert (target / "sparse").read_bytes()[32 << 20 : (32 << 20) + 6] == b"island"


def test_sockets_are_copied_as_sockets(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "source" / "s"))
        copy.copy_tree(tmp_path / "source", tmp_path / "target", durable=False)
    assert stat.S_ISSOCK((tmp_path / "target" / "s").stat().st_mode)


def test_a_link_in_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    """The volume's own root replaced by a link would lead a copy by root anywhere."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    (tmp_path / "source").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError) as caught:
        copy.copy_tree(tmp_path / "source", tmp_path / "target", durable=False)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_a_bottomless_tree_is_refused(tmp_path: Path) -> None:
    here = tmp_path / "source"
    here.mkdir()
    handle = os.open(here, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(420):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    with pytest.raises(OSError, match="nested more than 400 deep"):
        copy.copy_tree(here, tmp_path / "target", durable=False)
    btrfs.remove_tree(tmp_path / "target")
    btrfs.remove_tree(here)


def test_an_image_is_copied_once_and_to_the_byte(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(100_001))
    copy.copy_file(source, target, durable=True)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(FileExistsError):
        copy.copy_file(source, target, durable=True)


def test_removal_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "kept")
    btrfs.remove_tree(tmp_path / "tree")
    assert (tmp_path / "kept" / "file").exists()
    assert not (tmp_path / "tree").exists()
