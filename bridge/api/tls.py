"""The API's certificate, and the authority of its clients. A renewed certificate is taken up without a restart."""

from __future__ import annotations

import logging
import os
import pathlib
import ssl
import tempfile

from bridge.api.settings import ApiSettings
from bridge.model.failure import InvalidError

log = logging.getLogger(__name__)


class Identity:
    """The TLS side of the listener. New connections show what the files held at the last look."""

    def __init__(self, settings: ApiSettings) -> None:
        """Read the files. InvalidError when they cannot be used."""
        self._cert, self._key = settings.tls_cert_file, settings.tls_key_file
        self._seen = self._stamp()
        try:
            self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.context.minimum_version = ssl.TLSVersion.TLSv1_2
            self.context.load_cert_chain(self._cert, self._key)
            if settings.client_ca_file:
                self.context.load_verify_locations(settings.client_ca_file)
                # Optional, so that tokens and probes work beside certificates; the gate decides who is a caller.
                self.context.verify_mode = ssl.CERT_OPTIONAL
        except OSError as error:  # ssl.SSLError is one
            raise InvalidError(
                f"the API's TLS files cannot be used: {error.strerror or type(error).__name__}",
                field="api.tls",
                hint="check the certificate, its key and the client authority (PEM)",
            ) from error

    def renewed(self) -> bytes:
        """The renewed certificate with its key, tried; empty when there is none. One that cannot be used is told, and
        the old one stays. Blocks for two small reads."""
        stamp = self._stamp()
        if stamp == self._seen:
            return b""
        try:
            both = b"".join(pathlib.Path(path).read_bytes() + b"\n" for path in (self._cert, self._key))
            # A context whose load fails halfway would hold a certificate without its key.
            _load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), both)
        except OSError as error:
            log.warning("renewed certificate cannot be used", extra={"path": self._cert, "reason": error.strerror})
            return b""
        self._seen = stamp
        return both

    def take_up(self, both: bytes) -> None:
        """Show what was tried from now on. On the loop, where no handshake can come between certificate and key."""
        _load(self.context, both)
        log.info("renewed certificate taken up", extra={"path": self._cert})

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        found = []
        for path in (self._cert, self._key):
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.append((status.st_mtime_ns, status.st_ino))
        return tuple(found)


def _load(context: ssl.SSLContext, both: bytes) -> None:
    """From a file of our own, readable by nobody else: the given ones may be rewritten at any moment."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(both)
        file.flush()
        context.load_cert_chain(file.name)
