"""How a demonstration talks: a numbered heading per step, what is run, what came of it, checksums side by side."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

COMMAND_SECONDS = 120.0


class Story:
    """Prints the steps and runs the commands. A failed expectation ends the demonstration with exit code 1."""

    def __init__(self) -> None:
        self._number = 0
        self._began = time.monotonic()
        self.env = {**os.environ, "NO_COLOR": "1"}

    def step(self, title: str) -> None:
        self._number += 1
        print(f"\n{self._number}. {title}", flush=True)

    def say(self, text: str) -> None:
        print("\n".join("   " + line for line in text.splitlines()), flush=True)

    def run(self, argv: Sequence[str], *, shown: str, stdin: str = "") -> None:
        """Run a command; show it as a user would type it, and all that it printed."""
        self.say(f"$ {shown}")
        done = subprocess.run(
            argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env,
            check=False, timeout=COMMAND_SECONDS,
        )  # fmt: skip
        if done.stdout.strip():
            self.say(done.stdout.rstrip())
        if done.returncode != 0:
            self.fail(f"exit code {done.returncode}")

    def snapbridge(self, *words: str) -> None:
        """Run the product's own command."""
        self.run([sys.executable, "-m", "bridge", *words], shown="snapbridge " + " ".join(words))

    def rows(self, noun: str) -> list[dict[str, Any]]:
        """What `snapbridge NOUN list` has, quietly."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge", noun, "list", "-o", "json"],
            capture_output=True, text=True, env=self.env, check=False, timeout=COMMAND_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            self.fail(f"snapbridge {noun} list: {done.stderr.strip()[-2000:]}")
        found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return found

    def expect(self, holds: bool, what: str) -> None:
        """Say that something holds, or fail."""
        if not holds:
            self.fail(f"NOT true: {what}")
        self.say(f"ok: {what}")

    def fail(self, text: str) -> NoReturn:
        self.say(text)
        raise SystemExit(1)

    def end(self, text: str, following: str) -> None:
        print(f"\n{text} ({time.monotonic() - self._began:.0f} s)\nNext: {following}.", flush=True)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the demonstration once, and what follows is cleaning up, which nothing interrupts."""

    def end(number: int, _frame: FrameType | None) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        print("\nInterrupted: cleaning up.", flush=True)
        raise SystemExit(128 + number)

    before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def fill(folder: Path) -> None:
    """Real files: text, a tree, and random bytes."""
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.txt").write_text("1. take a snapshot\n2. sleep well\n")
    (folder / "photo.raw").write_bytes(os.urandom(4 << 20))
    for number in range(20):
        (folder / "notes" / f"{number:02}.txt").write_text(f"note {number}\n" * (number + 1))


def checksum(folder: Path) -> str:
    """SHA-256 over names and bytes of all files, in order; its first 16 digits."""
    whole = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        whole.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]
