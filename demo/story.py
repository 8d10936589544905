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
        self._interrupted = 0
        self._child: subprocess.Popen[str] | None = None
        self.env = {**os.environ, "NO_COLOR": "1"}

    def step(self, title: str) -> None:
        self._number += 1
        print(f"\n{self._number}. {title}", flush=True)

    def say(self, text: str) -> None:
        print("\n".join("   " + line for line in text.splitlines()), flush=True)

    def run(self, argv: Sequence[str], *, shown: str, stdin: str = "") -> None:
        """Run a command; show it as a user would type it, and all that it printed."""
        self.say(f"$ {shown}")
        printed = self.output(argv, stdin)
        if printed.strip():
            self.say(printed.rstrip())

    def output(self, argv: Sequence[str], stdin: str = "") -> str:
        """All that a command printed. A failure ends the demonstration; an interruption ends the command too."""
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env
        ) as child:
            self._child = child
            try:
                printed, _ = child.communicate(stdin, timeout=COMMAND_SECONDS)
            except BaseException:
                child.kill()
                raise
            finally:
                self._child = None
        if self._interrupted:
            raise SystemExit(128 + self._interrupted)
        if child.returncode != 0:
            self.say(printed.rstrip()[-2000:])
            self.fail(f"exit code {child.returncode}")
        return printed

    def snapbridge(self, *words: str) -> None:
        """Run the product's own command."""
        self.run([sys.executable, "-m", "bridge", *words], shown="snapbridge " + " ".join(words))

    def rows(self, noun: str) -> list[dict[str, Any]]:
        """What `snapbridge NOUN list` has, quietly."""
        printed = self.output([sys.executable, "-m", "bridge", noun, "list", "-o", "json"])
        found: list[dict[str, Any]] = json.loads(printed)["items"]
        return found

    def expect(self, holds: bool, what: str) -> None:
        """Say that something holds, or fail."""
        if not holds:
            self.fail(f"NOT true: {what}")
        self.say(f"ok: {what}")

    def fail(self, text: str) -> NoReturn:
        self.say(text)
        raise SystemExit(1)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the demonstration once; what follows is cleaning up, which nothing interrupts."""
        signals = (signal.SIGINT, signal.SIGTERM)

        def stop(number: int, _frame: FrameType | None) -> None:
            for one in signals:
                signal.signal(one, signal.SIG_IGN)
            self._interrupted = number
            if self._child is not None:
                self._child.kill()
            print("\nInterrupted: cleaning up.", flush=True)
            raise SystemExit(128 + number)

        before = {one: signal.signal(one, stop) for one in signals}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def end(self, text: str, following: str) -> None:
        print(f"\n{text} ({time.monotonic() - self._began:.0f} s)\nNext: {following}.", flush=True)


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
