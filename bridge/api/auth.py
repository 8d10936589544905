"""Who is calling: bearer tokens, client certificates, or this host itself. What a caller may do, the desk decides."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from bridge.api import problems
from bridge.api.settings import ApiSettings
from bridge.model.failure import DeniedError
from bridge.ports.identity import Authenticator, Caller

LOCAL = Caller("local")
_HINT = "send Authorization: Bearer TOKEN, or present a client certificate"


class Gate:
    """Lets a request in with a caller, or refuses it."""

    def __init__(self, settings: ApiSettings, authenticators: Sequence[Authenticator]) -> None:
        self._settings = settings
        self._authenticators = tuple(authenticators)

    def check_host(self, request: web.Request) -> None:
        """Keep web pages out where no credential is asked for (DNS rebinding, forms of other sites).

        A browser sends the name that it was given as Host, and names the page it is on as Origin.
        """
        if not self._settings.local_is_trusted:
            return
        host = request.headers.get("Host", "")
        if not _is_local_name(host):
            raise problems.Problem(
                403,
                "this address serves its own host only",
                code="HOST_NOT_ALLOWED",
                hint="call it as localhost or 127.0.0.1, or configure a token",
            )
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise problems.Problem(
                403, "web pages of other sites may not call this address", code="ORIGIN_NOT_ALLOWED"
            )

    async def caller(self, request: web.Request) -> Caller:
        """The authenticated caller. Problem 401 when there is none."""
        header = request.headers.get("Authorization")
        if header is not None:
            return await self._bearer(header)
        subject = _client_subject(request)
        if subject and (not self._settings.client_names or subject in self._settings.client_names):
            return Caller(subject)
        if self._settings.local_is_trusted or _over_unix_socket(request):
            return LOCAL
        if subject:
            detail = "this client certificate's subject may not call"
            raise problems.unauthenticated(detail, hint="use another certificate, or list the subject in the config")
        raise problems.unauthenticated("a credential is needed", hint=_HINT)

    async def _bearer(self, header: str) -> Caller:
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise problems.unauthenticated("the credential is of no known kind", hint=_HINT, rejected=True)
        for authenticator in self._authenticators:
            try:
                caller = await authenticator.check(token)
            except DeniedError as error:
                hint = error.hint or "get a new token"
                raise problems.unauthenticated(error.message, hint=hint, rejected=True) from error
            if caller is not None:
                return caller
        raise problems.unauthenticated("the token is not known here", hint="check the token", rejected=True)


def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _over_unix_socket(request: web.Request) -> bool:
    link: Any = request.transport.get_extra_info("socket") if request.transport is not None else None
    return link is not None and link.family == socket.AF_UNIX


def _client_subject(request: web.Request) -> str:
    """The common name of the verified client certificate; empty when none was presented."""
    certificate: Any = request.transport.get_extra_info("peercert") if request.transport is not None else None
    if not certificate:
        return ""
    parts = [pair for group in certificate.get("subject", ()) for pair in group]
    return next((str(value) for name, value in parts if name == "commonName"), "") or ",".join(
        f"{name}={value}" for name, value in parts
    )
