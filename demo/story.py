"""How a demonstration talks: a numbered heading per step, what is run, what came of it, checksums side by side."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Story:
    """Prints the steps and runs the commands. A failed expectation ends the demonstration with exit code 1."""

    def __init__(self, log_folder: Path) -> None:
        self._number = 0
        self._began = time.monotonic()
        self._logs = log_folder
        self.env = dict(os.environ)

    def step(self, title: str) -> None:
        self._number += 1
        print(f"\n{self._number}. {title}", flush=True)

    def say(self, text: str) -> None:
        print("\n".join("   " + line for line in text.splitlines()), flush=True)

    def run(self, *words: str, stdin: str | None = None, shown: str = "") -> str:
        """Run a command, show it and what it printed; CalledProcessError ends the demonstration."""
        self.say(f"$ {shown or ' '.join(words)}")
        done = subprocess.run(
            list(words), input=stdin, capture_output=True, text=True, env=self.env, check=False, timeout=120
        )
        if done.stdout.strip():
            self.say(done.stdout.rstrip())
        if done.returncode != 0:
            self.fail(f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def snapbridge(self, *words: str) -> str:
        """Run the product's own command."""
        return self.run(sys.executable, "-m", "bridge", *words, shown="snapbridge " + " ".join(words))

    def snapbridge_json(self, *words: str) -> Any:
        """The same, quietly, for its JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *words, "-o", "json"],
            capture_output=True,
            text=True,
            env=self.env,
            check=False,
            timeout=120,
        )
        if done.returncode != 0:
            self.fail(f"snapbridge {' '.join(words)}: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)

    def expect(self, holds: bool, what: str) -> None:
        """Say that something holds, or fail."""
        if not holds:
            self.fail(f"NOT true: {what}")
        self.say(f"ok: {what}")

    def fail(self, text: str) -> None:
        self.say(text)
        self.say(f"logs: {self._logs}")
        raise SystemExit(1)

    def end(self, text: str) -> None:
        print(f"\n{text} ({time.monotonic() - self._began:.1f} s)", flush=True)


def fill(folder: Path) -> None:
    """Real files: text, a tree, and random bytes."""
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("1. take a snapshot\n2. sleep well\n")
    (folder / "photo.raw").write_bytes(os.urandom(4 << 20))
    for number in range(20):
        (folder / "notes" / f"{number:02}.txt").write_text(f"note {number}\n" * (number + 1))


def checksum(folder: Path) -> str:
    """SHA-256 over names and bytes of all files, in order."""
    whole = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        whole.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]
