"""Static tokens from a file. Compared in constant time, read again when the file changes, never shown."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import pathlib
import re
import time

from bridge.model.failure import BridgeError, InvalidError, UnavailableError
from bridge.ports.identity import Caller

log = logging.getLogger(__name__)

SHORTEST_TOKEN = 16
DEFAULT_NAME = "token"
_COMMENT = re.compile(r"(?:^|\s)#")
"""A # inside a token is part of it: cut there, a shorter one would be taken."""


class TokenFile:
    """An Authenticator. A line is `TOKEN` or `NAME TOKEN`; several lines are several callers, or a rotation."""

    def __init__(self, path: str, *, look_seconds: float = 1.0) -> None:
        self._look_seconds = look_seconds
        self._path = pathlib.Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._looked_at = 0.0
        self._digests: tuple[tuple[bytes, str], ...] = ()
        self._trouble = ""

    def load(self) -> None:
        """Read the file if it has changed. Blocks for one small read.

        UnavailableError when it cannot be read, InvalidError when a line is no token.
        """
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen == self._seen:
                return
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._seen, self._digests = None, ()
            raise UnavailableError(
                f"the token file {self._path} cannot be read",
                field="api.token_file",
                hint="make it a text file that the service's user can read",
            ) from error
        self._digests = _parse(text, str(self._path))
        self._seen = seen

    def _load_again(self) -> None:
        """While it serves, a bad file is our trouble and not the caller's, who is not told where it lies."""
        try:
            self.load()
        except BridgeError as error:
            self._seen, self._digests = None, ()
            if str(error) != self._trouble:
                log.error("tokens cannot be checked", extra={"reason": str(error)})
            self._trouble = str(error)
            raise UnavailableError(
                "tokens cannot be checked now", hint="ask who runs the service; its log says why"
            ) from None
        self._trouble = ""

    async def check(self, bearer: str) -> Caller | None:
        """The caller of this token; None when no line has it."""
        now = time.monotonic()
        if now - self._looked_at >= self._look_seconds or self._seen is None:
            await asyncio.to_thread(self._load_again)
            self._looked_at = now
        digest = _digest(bearer)
        found = ""
        for known, name in self._digests:  # every line is compared: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = name
        return Caller(found) if found else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _parse(text: str, path: str) -> tuple[tuple[bytes, str], ...]:
    found: list[tuple[bytes, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = _COMMENT.split(line, maxsplit=1)[0].split()
        if not words:
            continue
        if len(words) > 2 or len(words[-1]) < SHORTEST_TOKEN:
            raise InvalidError(
                f"{path}, line {number}: not a token",
                field="api.token_file",
                hint=f"want TOKEN or NAME TOKEN, the token with {SHORTEST_TOKEN} characters or more",
            )
        found.append((_digest(words[-1]), words[0] if len(words) == 2 else DEFAULT_NAME))
    if not found:
        raise InvalidError(f"{path} holds no token", field="api.token_file", hint="put one token on a line")
    return tuple(found)
