"""Generates `bridge/pb` from `proto/`, in an environment of its own; with `--check`, tells whether it is current.

The generator is pinned and isolated because generated code must not be newer than any protobuf runtime that we
support, and because its dependencies would otherwise decide ours. Generated files are committed and never edited.
This tool must not touch anything but `bridge/pb`, and with `--check` not even that.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"
TARGET = ROOT / "bridge" / "pb"
# grpcio-tools 1.76 writes code for protobuf 6.31.1 and later; see pyproject.toml, where the same floor stands.
REQUIREMENTS = ("grpcio-tools==1.76.0", "mypy-protobuf==5.1.0", "protobuf==6.33.6", "setuptools<85")
MODULE_PATH = "bridge/pb"
HEADER = '"""Generated from `proto/` by `tools/make_proto.py`; not to be edited."""\n'


def cache_dir() -> Path:
    """The folder where built tools are kept between runs."""
    return Path(os.environ.get("SNAPBRIDGE_CACHE") or Path.home() / ".cache" / "snapbridge")


def generator_python() -> Path:
    """The interpreter of the generator's environment, which is made on first use."""
    name = "protoc-" + "-".join(r.partition("==")[2] or "x" for r in REQUIREMENTS[:3])
    home = cache_dir() / name
    python = home / "bin" / "python"
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "complete").exists():
            shutil.rmtree(home, ignore_errors=True)
            _make_environment(home, python)
            (home / "complete").touch()
    return python


def _make_environment(home: Path, python: Path) -> None:
    uv = shutil.which("uv")
    if uv is not None:
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(home)])
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS])
    else:
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS])


def compile_descriptor(include: Path, source: Path, output: Path) -> None:
    """Writes the descriptor set of `source` (found below `include`, with its imports) to `output`.

    For tests that compare interfaces: nothing is loaded into this process.
    """
    python = generator_python()
    _run([
        str(python), "-m", "grpc_tools.protoc", f"-I{include}", "--include_imports",
        f"--descriptor_set_out={output}", str(source),
    ])  # fmt: skip


def generate(target: Path) -> None:
    """Writes the package below `target`, which must be an empty or absent folder."""
    python = generator_python()
    sources = sorted(str(p.relative_to(SOURCES)) for p in SOURCES.rglob("*.proto"))
    with tempfile.TemporaryDirectory(prefix="snapbridge-proto-") as scratch:
        _run(
            [
                str(python), "-m", "grpc_tools.protoc", f"-I{MODULE_PATH}={SOURCES}",
                f"--python_out={scratch}", f"--grpc_python_out={scratch}",
                f"--mypy_out=quiet:{scratch}", f"--mypy_grpc_out=quiet:{scratch}",
                *(f"{MODULE_PATH}/{source}" for source in sources),
            ],
            path_first=python.parent,
        )  # fmt: skip
        shutil.copytree(Path(scratch) / MODULE_PATH, target, dirs_exist_ok=True)
    for folder in [target, *(p for p in target.rglob("*") if p.is_dir())]:
        (folder / "__init__.py").write_text(HEADER)


def _run(command: list[str], *, path_first: Path | None = None) -> None:
    environment = dict(os.environ)
    if path_first is not None:
        # protoc finds its plugins by PATH; a protobuf of the caller's must not shine through.
        environment["PATH"] = f"{path_first}{os.pathsep}{environment.get('PATH', '')}"
    environment.pop("PYTHONPATH", None)
    subprocess.run(command, check=True, env=environment, cwd=ROOT)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def drift(fresh: Path, committed: Path) -> list[str]:
    """What differs between a fresh result and the committed one, one line each."""
    new, old = _contents(fresh), _contents(committed)
    lines = [f"missing: {name}" for name in sorted(new.keys() - old.keys())]
    lines += [f"left over: {name}" for name in sorted(old.keys() - new.keys())]
    lines += [f"differs: {name}" for name in sorted(new.keys() & old.keys()) if new[name] != old[name]]
    return lines


def write(fresh: Path, target: Path) -> None:
    """Brings `target` to the contents of `fresh`, touching only the files that differ."""
    new, old = _contents(fresh), _contents(target)
    for name in old.keys() - new.keys():
        (target / name).unlink()
    for name, content in new.items():
        if old.get(name) != content:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)


def main(argv: list[str]) -> int:
    """Returns 0 when `bridge/pb` is current or was written; 1 when `--check` found a difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if bridge/pb is not current")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="snapbridge-pb-") as scratch:
        fresh = Path(scratch) / "pb"
        generate(fresh)
        lines = drift(fresh, TARGET)
        if options.check:
            for line in lines:
                print(f"bridge/pb is not what proto/ gives: {line}", file=sys.stderr)
            if lines:
                print("remedy: make proto, and commit the result", file=sys.stderr)
            return 1 if lines else 0
        write(fresh, TARGET)
    print(f"bridge/pb: {len(lines)} file(s) changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
