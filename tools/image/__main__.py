"""`python -m tools.image`: the container image as one archive.

    python -m tools.image --output dist/snapbridge-image.tar
    ctr -n k8s.io images import dist/snapbridge-image.tar

The environment that runs it gives the packages: `make env` fills it from the lock.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bridge
from tools.image import bytecode, interpreter, libraries, oci, tree

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "snapbridge"
PACKAGES = ("bridge", "adapters")
NAME = f"docker.io/local/{PROJECT}:{bridge.__version__}"
UID = 65532
"""Who runs it unless a manifest says otherwise. A role that opens the host's sockets has to be their owner, root."""
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build it and say what it is."""
    parser = argparse.ArgumentParser(prog="python -m tools.image", description="Build the container image.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / f"{PROJECT}-image.tar")
    parser.add_argument("--name", default=NAME, help="the image's name with its tag (default %(default)s)")
    parser.add_argument("--revision", default="", help="the commit, for the image's labels")
    parser.add_argument("--compression", type=int, default=6, choices=range(10), metavar="0-9")
    parser.add_argument("--cache", type=Path, help="keep the layer with Python and the packages in this folder")
    given = parser.parse_args(arguments)
    try:
        report = build(given)
    except libraries.LibraryError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


def build(given: argparse.Namespace) -> str:
    """Write the archive; gives a sentence with its name, size and digest."""
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.output.parent) as scratch:
        folder = Path(scratch)
        below = _kept_layer(given.cache, given.compression) if given.cache else None
        if below is None:
            below = oci.make_layer(
                system_tree(folder), given.cache or folder, "system", compression=given.compression
            )
            _keep(given.cache, given.compression, below)
        above = oci.make_layer(project_tree(folder), folder, "project", compression=given.compression)
        digest = oci.write(given.output, _image(given.name, given.revision), [below, above])
    size = sum(layer.tar_size for layer in (below, above)) / 1e6
    packed = given.output.stat().st_size / 1e6
    return f"{given.name}: {size:.0f} MB unpacked, {packed:.0f} MB in {given.output}, {digest}"


def system_tree(scratch: Path) -> tree.Tree:
    """Python, the packages and the libraries: what changes with the lock only."""
    made = tree.Tree()
    binaries = interpreter.add_python(made)
    interpreter.add_venv(made)
    binaries += interpreter.add_packages(made, PROJECT)
    libraries.add(made, libraries.closure(binaries, inside=interpreter.folders()))
    made.put("tmp", tree.Folder(0o1777))
    people = f"root:x:0:0:root:/:/sbin/nologin\n{PROJECT}:x:{UID}:{UID}:{PROJECT}:/:/sbin/nologin\n"
    made.put("etc/passwd", tree.File(people.encode()))
    made.put("etc/group", tree.File(f"root:x:0:\n{PROJECT}:x:{UID}:\n".encode()))
    made.put("etc/hosts", tree.File(b"127.0.0.1 localhost\n::1 localhost\n"))
    made.put("etc/nsswitch.conf", tree.File(b"hosts: files dns\n"))
    made.put("etc/ssl/certs/ca-certificates.crt", tree.File(_certificates()))
    bytecode.add(made, scratch / "system-bytecode")
    return made


def project_tree(scratch: Path) -> tree.Tree:
    """snapbridge itself."""
    made = tree.Tree()
    interpreter.add_sources(made, ROOT, PACKAGES, PROJECT)
    made.put(f"usr/share/doc/{PROJECT}/copyright", tree.File(ROOT / "LICENSE"))
    bytecode.add(made, scratch / "project-bytecode")
    return made


def _image(name: str, revision: str) -> oci.Image:
    title = "org.opencontainers.image"
    labels = {
        f"{title}.title": PROJECT,
        f"{title}.description": "The same CSI snapshots for Kubernetes, Nomad and plain hosts, from one service",
        f"{title}.version": bridge.__version__,
        f"{title}.licenses": "Apache-2.0",
    }
    if revision:
        labels[f"{title}.revision"] = revision
    return oci.Image(
        name=name,
        entrypoint=[f"/{interpreter.VENV}/bin/{PROJECT}"],
        user=f"{UID}:{UID}",
        env=[
            f"PATH=/{interpreter.VENV}/bin:/usr/local/bin:/usr/bin:/bin",
            "LANG=C.UTF-8",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        ],
        labels=labels,
    )


def _certificates() -> bytes:
    """The public authorities: this machine's, or else those that a package brings."""
    if _CERTIFICATES.is_file():
        return _CERTIFICATES.read_bytes()
    import certifi

    return Path(certifi.where()).read_bytes()


def _fingerprint(compression: int) -> str:
    """Of all that decides what the lower layer holds, but for the machine's own libraries."""
    digest = hashlib.sha256(f"{sys.version} {Path(sys.executable).resolve()} {compression}".encode())
    for path in [ROOT / "requirements.lock", *sorted(Path(__file__).parent.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _kept_layer(cache: Path, compression: int) -> oci.Layer | None:
    cache.mkdir(parents=True, exist_ok=True)
    about = cache / "system.json"
    if not about.is_file() or not (cache / "system").is_file():
        return None
    kept = json.loads(about.read_text())
    if kept.pop("fingerprint") != _fingerprint(compression):
        return None
    return oci.Layer(path=cache / "system", **kept)


def _keep(cache: Path | None, compression: int, layer: oci.Layer) -> None:
    if cache is not None:
        kept = {name: value for name, value in dataclasses.asdict(layer).items() if name != "path"}
        text = json.dumps({**kept, "fingerprint": _fingerprint(compression)})
        (cache / "system.json").write_text(text)


if __name__ == "__main__":
    raise SystemExit(main())
