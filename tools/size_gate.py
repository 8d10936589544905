"""Refuses a Python file over 500 lines or a function over 50; generated code (bridge/pb) is apart.

It measures and reports; it changes nothing.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 500
FUNCTION_LINES = 50
GENERATED = ROOT / "bridge" / "pb"
NOT_OURS = {".venv", ".git", ".cache", "node_modules", "build", "dist", ".demo"}


def main() -> int:
    """Print each file and function that is too long; 1 when there is one."""
    sizes: list[int] = []
    faults: list[str] = []
    for path in sorted(_sources()):
        text = path.read_text(encoding="utf-8")
        sizes.append(len(text.splitlines()))
        faults += faults_in(str(path.relative_to(ROOT)), text)
    for fault in faults:
        print(fault, file=sys.stderr)
    if not sizes:
        print("size gate: no Python file found: the gate looked in the wrong place", file=sys.stderr)
        return 1
    if not faults:
        print(f"size gate: {len(sizes)} files, median {statistics.median(sizes):.0f} lines, longest {max(sizes)}")
    return 1 if faults else 0


def faults_in(name: str, text: str) -> list[str]:
    """What is too long in one file's text, in words that name the place and the limit."""
    lines = len(text.splitlines())
    faults = [f"{name}: {lines} lines, at most {FILE_LINES}: split the file"] if lines > FILE_LINES else []
    return faults + [
        f"{name}:{line}: {function} has {length} lines, at most {FUNCTION_LINES}: split the function"
        for function, line, length in _functions(ast.parse(text, name))
        if length > FUNCTION_LINES
    ]


def _sources() -> Iterator[Path]:
    """The Python files that git knows or would add; without git, all but known foreign folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.splitlines()]
    else:
        found = [path for path in ROOT.rglob("*.py") if NOT_OURS.isdisjoint(path.relative_to(ROOT).parts)]
    return (path for path in found if path.is_file() and not path.is_relative_to(GENERATED))


def _functions(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


if __name__ == "__main__":
    sys.exit(main())
