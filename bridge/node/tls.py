"""Mutual TLS of hub and agent: credentials from PEM files, and whose certificate the other side showed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import grpc

from bridge.model.failure import InvalidError
from bridge.node.settings import Tls

_Fetcher = Callable[[], grpc.ServerCertificateConfiguration]

log = logging.getLogger(__name__)


def client_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Read anew for each dial, so that renewed certificates are taken. Blocks briefly; InvalidError."""
    authorities, key, certificate = _read(tls)
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """A client certificate is required; renewed files are taken at the next handshake. InvalidError."""
    return grpc.dynamic_ssl_server_credentials(
        _configuration(_read(tls)), cast(_Fetcher, _Renewal(tls)), require_client_authentication=True
    )


def peer_names(auth_context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The names in the other side's certificate: its common name and its alternative names."""
    keys = ("x509_common_name", "x509_subject_alternative_name")
    return frozenset(name.decode(errors="replace") for key in keys for name in auth_context.get(key, ()))


class _Renewal:
    """Called by gRPC, in a thread of its own, before each handshake."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen = _read(tls)
        self._lock = threading.Lock()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            found = _read(self._tls)
        except InvalidError as error:
            log.warning("renewed certificates cannot be read; the old ones stay", extra={"reason": str(error)})
            return None
        with self._lock:
            if found == self._seen:
                return None
            self._seen = found
        return _configuration(found)


def _configuration(files: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    authorities, key, certificate = files
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)


def _read(tls: Tls) -> tuple[bytes, bytes, bytes]:
    found = []
    for field in ("authorities", "key", "certificate"):
        path = getattr(tls, field)
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InvalidError(f"{path} cannot be read: {error.strerror}", field=f"tls.{field}") from error
        if b"-----BEGIN" not in content:
            raise InvalidError(f"{path} is not a PEM file", field=f"tls.{field}")
        found.append(content)
    return found[0], found[1], found[2]
