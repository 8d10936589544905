"""An image archive in the OCI layout, which containerd, podman and docker read; docker's older list too."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.image import tree

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer in a file. `diff_id` is the digest of its tar before compression."""

    path: Path
    digest: str
    diff_id: str
    size: int
    tar_size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """What an image runs, as whom, and what it is called."""

    name: str
    """With its tag: host/path:tag."""
    entrypoint: Sequence[str]
    user: str
    env: Sequence[str]
    labels: Mapping[str, str]


def make_layer(content: tree.Tree, folder: Path, name: str, *, compression: int = 6) -> Layer:
    """Write a tree as a layer below `folder`, compressed unless `compression` is 0."""
    path = folder / name
    with tempfile.TemporaryFile() as plain:
        content.write(plain)
        tar_size = plain.tell()
        diff_id = _digest_of(plain)
        plain.seek(0)
        with path.open("wb") as target:
            if compression:
                with gzip.GzipFile(filename="", mode="wb", fileobj=target, compresslevel=compression, mtime=0) as gz:
                    shutil.copyfileobj(plain, gz, 1 << 20)
            else:
                shutil.copyfileobj(plain, target, 1 << 20)
    with path.open("rb") as written:
        digest = _digest_of(written)
    return Layer(path, digest, diff_id, path.stat().st_size, tar_size)


def write(target: Path, image: Image, layers: Sequence[Layer]) -> str:
    """Write the archive; gives the manifest's digest, which names the image's content."""
    config = _config(image, layers)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _described(f"{_MEDIA}.config.v1+json", config),
            "layers": [_layer(layer) for layer in layers],
        }
    )
    named = {
        "io.containerd.image.name": image.name,
        "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
    }
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.index.v1+json",
        "manifests": [{**_described(f"{_MEDIA}.manifest.v1+json", manifest), "annotations": named}],
    }
    older = [
        {"Config": _blob(_sha(config)), "RepoTags": [image.name], "Layers": [_blob(one.digest) for one in layers]}
    ]
    files: dict[str, bytes | Path] = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json(index),
        "manifest.json": _json(older),
        _blob(_sha(config)): config,
        _blob(_sha(manifest)): manifest,
        **{_blob(layer.digest): layer.path for layer in layers},
    }
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as archive:
        tree.plain_tar(archive, files)
    partial.replace(target)
    return _sha(manifest)


def _config(image: Image, layers: Sequence[Layer]) -> bytes:
    created = datetime.datetime.fromtimestamp(tree.EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": created,
            "config": {
                "User": image.user,
                "Entrypoint": list(image.entrypoint),
                "Env": list(image.env),
                "WorkingDir": "/",
                "Labels": dict(sorted(image.labels.items())),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": "tools.image"} for _ in layers],
        }
    )


def _layer(layer: Layer) -> dict[str, Any]:
    kind = "tar" if layer.digest == layer.diff_id else "tar+gzip"
    return {"mediaType": f"{_MEDIA}.layer.v1.{kind}", "digest": layer.digest, "size": layer.size}


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _sha(content), "size": len(content)}


def _blob(digest: str) -> str:
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _digest_of(file: Any) -> str:
    file.seek(0)
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
