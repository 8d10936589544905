"""Bytecode for a tree's sources. The image is read-only where it runs: without it every start would compile anew.

What the compiler writes depends a little on what its process did before, and on the order of its sets. So a process
of its own compiles, with a fixed seed and nothing else in it: the same sources, the same bytes.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from tools.image.tree import File, Tree

_PROGRAM = """
import json, py_compile, sys
unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
for source, target, name in json.load(sys.stdin):
    try:
        py_compile.compile(source, target, name, doraise=True, invalidation_mode=unchecked)
    except (py_compile.PyCompileError, ValueError):
        pass  # a template with the name of a module
"""


def add(tree: Tree, folder: Path) -> None:
    """Compile every module of the tree into `folder`, which must outlive the writing of the tree."""
    folder.mkdir()
    jobs = []
    for place, entry in sorted(tree.entries.items()):
        if place.endswith(".py") and isinstance(entry, File) and isinstance(entry.content, Path):
            jobs.append((str(entry.content), str(folder / f"{len(jobs)}.pyc"), f"/{place}"))
    words = [sys.executable, "-S", "-s", "-c", _PROGRAM]
    subprocess.run(words, input=json.dumps(jobs), text=True, check=True, env={"PYTHONHASHSEED": "0"})
    for _, target, name in jobs:
        if Path(target).exists():
            tree.put(importlib.util.cache_from_source(name), File(Path(target)))
