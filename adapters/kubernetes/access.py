"""How to reach and convince an API server, read from a pod's service account or from a plain kubeconfig.

The client library reads everything else (credential plugins, OIDC, several files in one), but importing it costs a
start half a second and 20 MiB: more than all the rest of a role. So it is asked only for what is not plain
(docs/decisions/0011-plain-access.md). Nothing is sent from here.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import pathlib
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import yaml

Object = dict[str, Any]
Authorization = Callable[[], Awaitable[str]]
"""Gives the value of the header, empty for none. OSError: there is none to be had now."""

TOKEN_SECONDS = 60.0
"""A pod's token is read again when it was read so long ago: the node renews it long before it expires."""
_PLAIN_USER = frozenset(
    {"token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data",
     "username", "password"}
)  # fmt: skip
_PLAIN_CLUSTER = frozenset(
    {"server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name",
     "proxy-url", "disable-compression", "extensions"}
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """Where the server is and how to talk to it."""

    host: str
    tls: ssl.SSLContext
    authorization: Authorization
    server_name: str | None = None
    """The name that the server's certificate must have, where that is not the host's."""
    proxy: str | None = None


def of_pod(
    folder: pathlib.Path, environment: Mapping[str, str] = os.environ, *, token_seconds: float = TOKEN_SECONDS
) -> Access:
    """A pod's way in. ValueError or OSError: this is no pod, or its token or certificate cannot be read."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ValueError("Service host/port is not set: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT")
    authority = folder / "ca.crt"
    if not authority.read_text(encoding="utf-8").strip():
        raise ValueError(f"{authority} is empty")
    token = _Token(folder / "token", token_seconds)
    token.read()
    name = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(authority))
    return Access(f"https://{name}:{port}", tls, token)


def of_file(path: pathlib.Path, context: str = "") -> Access | None:
    """A kubeconfig's way in; None when something in it is not plain or not as it should be: the library judges that.

    ValueError or OSError: what it names cannot be used.
    """
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        chosen = _named(config["contexts"], context or config["current-context"])["context"]
        cluster = _named(config["clusters"], chosen["cluster"])["cluster"]
        user = _named(config.get("users") or (), chosen["user"])["user"] or {} if chosen.get("user") else {}
        plain = _is_plain(cluster, _PLAIN_CLUSTER) and _is_plain(user, _PLAIN_USER)
        server = cluster["server"]
    except (KeyError, TypeError, LookupError, AttributeError, yaml.YAMLError):
        return None
    if not plain or not isinstance(server, str) or not server:
        return None
    return Access(
        server.rstrip("/"),
        _tls(cluster, user, path.parent),
        _authorization(user, path.parent),
        cluster.get("tls-server-name") or None,
        cluster.get("proxy-url") or None,
    )


class _Token:
    """A token in a file, read again as it grows old."""

    def __init__(self, path: pathlib.Path, seconds: float = TOKEN_SECONDS) -> None:
        self._path = path
        self._seconds = seconds
        self._value = ""
        self._read_at = 0.0

    async def __call__(self) -> str:
        return self.read()

    def read(self) -> str:
        """The header's value. OSError: there is no token."""
        now = time.monotonic()
        if not self._value or now - self._read_at >= self._seconds:
            token = self._path.read_text(encoding="utf-8").strip()
            if not token:
                raise OSError(f"{self._path} is empty")
            self._value, self._read_at = f"Bearer {token}", now
        return self._value


def _named(items: Iterable[Object], name: str) -> Object:
    """The one item of this name. LookupError when there is none or more than one."""
    found = [item for item in items if item["name"] == name]
    if len(found) != 1:
        raise LookupError(name)
    return found[0]


def _is_plain(section: Object, fields: frozenset[str]) -> bool:
    switch = section.get("insecure-skip-tls-verify", False)
    texts = (value for field, value in section.items() if field not in ("extensions", "insecure-skip-tls-verify"))
    plain = all(isinstance(value, str | bool) for value in texts)
    return set(section) <= fields and isinstance(switch, bool) and plain


def _authorization(user: Object, folder: pathlib.Path) -> Authorization:
    value = ""
    if user.get("token"):
        value = f"Bearer {user['token']}"
    elif user.get("tokenFile"):
        token = _Token(folder / user["tokenFile"])
        token.read()
        return token
    elif "username" in user and "password" in user:
        pair = f"{user['username']}:{user['password']}".encode()
        value = f"Basic {base64.b64encode(pair).decode()}"

    async def fixed() -> str:
        return value

    return fixed


def _tls(cluster: Object, user: Object, folder: pathlib.Path) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = _content(user, "client-certificate", folder)
    key = _content(user, "client-key", folder)
    if certificate:
        # The one way into a context is a file; both may stand in one.
        with tempfile.NamedTemporaryFile(prefix="snapbridge-") as both:  # Mode 0600.
            both.write(certificate + b"\n" + (key or b""))
            both.flush()
            context.load_cert_chain(both.name)
    return context


def _content(section: Object, field: str, folder: pathlib.Path) -> bytes | None:
    """What `field` holds, as data or as the name of a file beside the kubeconfig."""
    data = section.get(f"{field}-data")
    if data:
        return base64.b64decode(data)
    name = section.get(field)
    return (folder / name).read_bytes() if name else None
