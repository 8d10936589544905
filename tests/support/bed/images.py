"""Container images made on the spot, because no image registry can be reached: one layer, one config."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.bed import packages, process

BUSYBOX = "docker.io/local/busybox:1"
FOREVER = ("/bin/busybox", "sleep", "2147483647")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def busybox(folder: Path) -> Path:
    """Write an image named BUSYBOX with a static busybox and links for all its applets; give the tar's path."""
    program = packages.program("busybox")
    content = program.read_bytes()
    if b"/ld-linux" in content[:8192] or b"/ld-musl" in content[:8192]:
        raise process.MissingServerError(
            f"{program} is not static and runs in no image: install the package busybox-static"
        )
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        for directory, mode in (("bin", 0o755), ("tmp", 0o1777), ("data", 0o755), ("etc", 0o755)):
            archive.addfile(_entry(directory, tarfile.DIRTYPE, mode))
        _add(archive, "bin/busybox", content, 0o755)
        _add(archive, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)
        for applet in applets:
            if applet != "busybox":
                link = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
                link.linkname = "busybox"
                archive.addfile(link)
    target = folder / "busybox.tar"
    from_layer(target, BUSYBOX, layer, command=FOREVER)
    layer.unlink()
    return target


def from_layer(
    target: Path, name: str, layer: Path, *, command: Sequence[str], env: Sequence[str] = ("PATH=/bin",)
) -> None:
    """Write a docker-format image archive with one uncompressed layer, such as a debootstrap tree's tar."""
    digest = hashlib.sha256()
    with layer.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": list(command), "Env": list(env), "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        _add(archive, config_name, config, 0o644)
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)
        archive.add(layer, "layer.tar")


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
