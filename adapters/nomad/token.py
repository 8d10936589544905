"""The token that calls to Nomad carry: from a file (an ACL token or a workload identity) or the environment.

It is read again when its file changes; it is never logged, and nothing but the client asks for it.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import time

from bridge.model.failure import UnavailableError

_LOOK_AGAIN_SECONDS = 5.0
_TOKEN = re.compile(rb"[!-~]+")
"""What a header can carry, without blanks."""


class _NoTokenError(Exception):
    """The file holds something else."""


class Token:
    """The current token; an empty one where none is set."""

    def __init__(self, file: str = "", env: str = "") -> None:
        self._file = pathlib.Path(file) if file else None
        self._env = env
        self._value = ""
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")

    def __repr__(self) -> str:
        return f"Token({self._file or self._env or 'none'})"

    async def get(self, *, fresh: bool = False) -> str:
        """The token. `fresh` looks at the file even if it was looked at a moment ago.

        UnavailableError when the file cannot be read, or has never held a token.
        """
        if self._env:
            return os.environ.get(self._env, "")
        if self._file is None:
            return ""
        if fresh or time.monotonic() - self._looked > _LOOK_AGAIN_SECONDS:
            try:
                await asyncio.to_thread(self._read, self._file)
            except OSError as error:
                raise UnavailableError(
                    f"the token file {self._file} cannot be read: {error.strerror or error}",
                    hint="check token_file and its permissions",
                ) from error
            except _NoTokenError:  # what is in it is shown nowhere
                if self._value:
                    return self._value  # somebody is just writing it; the next call looks again
                raise UnavailableError(
                    f"the token file {self._file} does not hold one token",
                    hint="token_file is a file with the token's SecretID, or a workload identity, and nothing else",
                ) from None
            self._looked = time.monotonic()
        return self._value

    def _read(self, file: pathlib.Path) -> None:
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            value = file.read_bytes().strip()
            if _TOKEN.fullmatch(value) is None:
                raise _NoTokenError
            self._value = value.decode("ascii")
            self._stamp = stamp
