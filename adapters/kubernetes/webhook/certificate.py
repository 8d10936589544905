"""The webhook's certificate: read from two files, and read again when they change, while connections go on.

A new pair takes effect only as a whole: a key that does not match yet, or a file that is being written, is waited out
with the old pair still served.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import pathlib
import ssl

from bridge.model import failure
from bridge.ports.clock import Clock

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


class Certificate:
    """`context` is what the listener is given once; each new connection gets the pair of that moment."""

    def __init__(self, cert_file: str, key_file: str) -> None:
        """InvalidError when there is no usable pair at the start."""
        self._files = (pathlib.Path(cert_file), pathlib.Path(key_file))
        try:
            self._mark = self._read_mark()
            self._current = self._load()
        except (OSError, ssl.SSLError) as error:
            raise failure.InvalidError(
                f"the certificate cannot be used: {error}",
                field="--tls-cert-file, --tls-private-key-file",
                hint="Give a PEM certificate (with its chain behind it) and the PEM key that belongs to it",
            ) from error
        self.context = self._load()
        self.context.sni_callback = self._choose
        self.trouble = ""
        """Why the files on disk are not what is served; empty while they are."""

    async def watch(self, clock: Clock, look_seconds: float = LOOK_SECONDS) -> None:
        """Look at the files now and then, until cancelled."""
        while True:
            await clock.sleep(look_seconds)
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """Take over what is new in the files. Returns whether something was."""
        try:
            mark = self._read_mark()
            if mark == self._mark:
                self.trouble = ""
                return False
            loaded = self._load()
            if self._read_mark() != mark:
                return False  # Still being written: the next look decides.
        except (OSError, ssl.SSLError) as error:
            if not self.trouble:
                log.warning("the new certificate cannot be used, the old one stays", extra={"error": str(error)})
            self.trouble = f"the certificate on disk cannot be used: {error}"
            return False
        self._current, self._mark, self.trouble = loaded, mark, ""
        log.info("a new certificate is served", extra={"file": str(self._files[0])})
        return True

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._files)
        return context

    def _read_mark(self) -> bytes:
        digest = hashlib.sha256()
        for path in self._files:
            digest.update(path.read_bytes())
            digest.update(b"\0")
        return digest.digest()
