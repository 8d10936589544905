"""The size gate: what is too long is named, what is just right passes, and the tree itself passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools import size_gate

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_of_500_lines_passes_and_501_do_not() -> None:
    assert size_gate.faults_in("a.py", "x = 1\n" * 500) == []
    assert size_gate.faults_in("a.py", "x = 1\n" * 501) == ["a.py: 501 lines, at most 500: split the file"]


def test_a_function_of_50_lines_passes_and_51_do_not() -> None:
    assert size_gate.faults_in("a.py", "def short():\n" + "    x = 1\n" * 49) == []
    long = "class A:\n    async def long(self):\n" + "        x = 1\n" * 50
    assert size_gate.faults_in("a.py", long) == ["a.py:2: long has 51 lines, at most 50: split the function"]


def test_the_tree_passes() -> None:
    done = subprocess.run(
        [sys.executable, "tools/size_gate.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "median" in done.stdout
