"""No orchestrator's words in the core: an identifier in `bridge/` is made of neutral words only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = frozenset(
    {"finalizer", "finalizers", "annotation", "annotations", "crd", "crds", "alloc", "allocs", "allocation"}
    | {"allocations", "job", "jobs", "pvc", "pvcs", "pv", "kubelet", "kubernetes", "nomad", "pod", "pods"}
)
PYTHONS_OWN = frozenset({("parse.py", "annotation"), ("config_errors.py", "annotation")})
"""Where the word is Python's: a field's type annotation."""


def words(identifier: str) -> set[str]:
    """The words of an identifier.

    >>> sorted(words("jobStatus_of"))
    ['job', 'of', 'status']
    """
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            yield from (alias.asname or alias.name for alias in node.names)


FILES = sorted(path for path in (ROOT / "bridge").rglob("*.py") if "pb" not in path.relative_to(ROOT).parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_foreign_word(path: Path) -> None:
    tree = ast.parse(path.read_text())
    found = {name for name in identifiers(tree) if words(name) & FOREIGN}
    found -= {name for file, name in PYTHONS_OWN if file == path.name}
    assert not found, f"neutral words only in {path.name}: {sorted(found)}"
    assert not words(path.stem) & FOREIGN


def test_the_gate_bites() -> None:
    tree = ast.parse("def jobs_of(pod): return pod.annotation")
    assert {name for name in identifiers(tree) if words(name) & FOREIGN} == {"jobs_of", "pod", "annotation"}
