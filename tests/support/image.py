"""The project's own container image on the bed's node: built from the working tree, imported once per node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.bed import locks, node, paths, process

NAME = "docker.io/local/snapbridge:test"
BUILD_SECONDS = 300.0
_imported: dict[Path, str] = {}


def build(target: Path) -> str:
    """Build the archive; gives its digest. The layer with Python and the packages is kept in the cache."""
    with locks.held("image"):
        done = subprocess.run(
            [
                sys.executable, "-m", "tools.image", f"--output={target}", f"--name={NAME}",
                "--compression=0", f"--cache={paths.cache() / 'image'}",
            ],
            cwd=paths.REPOSITORY, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise process.ServerError(f"the image was not built: {done.stderr}")
    return done.stdout.split()[-1]


def on(place: node.Node) -> str:
    """The name of the image, which the node has from now on."""
    if place.root_dir not in _imported:
        archive = paths.fresh("image") / "image.tar"
        _imported[place.root_dir] = build(archive)
        place.import_image(archive)
        archive.unlink()
    return NAME


def digest(place: node.Node) -> str:
    """What the node's image was when it was built."""
    on(place)
    return _imported[place.root_dir]
