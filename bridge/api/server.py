"""Listening and stopping. Serves until cancelled, then lets the requests under way end."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import ssl
from collections.abc import Callable, Sequence

from aiohttp import web

from bridge.api import tls, wire
from bridge.api.operations import WAITERS
from bridge.api.settings import ApiSettings
from bridge.model.failure import BridgeError, InvalidError, UnavailableError

log = logging.getLogger(__name__)


def _ignore(addresses: Sequence[str]) -> None:
    """Nobody wants to know."""


async def serve(
    app: web.Application, settings: ApiSettings, *, started: Callable[[Sequence[str]], None] = _ignore
) -> None:
    """Listen until cancelled. `started` gets the addresses once they answer (`http://127.0.0.1:7717`, `unix:/…`).

    InvalidError or UnavailableError when an address or a TLS file cannot be used; nothing listens then.
    On cancel: no new connections, blocking queries answer at once, the others get `shutdown_seconds`.
    """
    identity = tls.Identity(settings) if settings.tls_cert_file else None
    context = identity.context if identity is not None else None
    made: list[pathlib.Path] = []
    runner = wire.Runner(app, handle_signals=False, access_log=None, shutdown_timeout=settings.shutdown_seconds)
    await runner.setup()
    try:
        addresses = await _listen(runner, settings, context, made)
        log.info("api listens", extra={"addresses": addresses})
        started(addresses)
        while True:
            await asyncio.sleep(settings.tls_look_seconds)
            if identity is not None and (both := await asyncio.to_thread(identity.renewed)):
                identity.take_up(both)
    finally:
        app[WAITERS].stopping.set()
        await runner.cleanup()
        for path in made:  # only our own: another service's socket stays
            await asyncio.to_thread(path.unlink, missing_ok=True)


async def _listen(
    runner: web.AppRunner, settings: ApiSettings, context: ssl.SSLContext | None, made: list[pathlib.Path]
) -> list[str]:
    """Start every listener; sockets that were made are added to `made`."""
    addresses: list[str] = []
    if settings.host:
        site = web.TCPSite(runner, settings.host, settings.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise _no_listener(f"{settings.host} port {settings.port}", "api.port", error) from error
        scheme = "https" if context is not None else "http"
        host, port = runner.addresses[0][:2]
        addresses.append(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
    if settings.unix_socket:
        path = pathlib.Path(settings.unix_socket)
        await _listen_on_socket(runner, path)
        made.append(path)
        addresses.append(f"unix:{settings.unix_socket}")
    return addresses


async def _listen_on_socket(runner: web.AppRunner, path: pathlib.Path) -> None:
    """Bind the socket for this user only. A socket that still answers belongs to another service."""
    if await _is_answered(path):
        raise InvalidError(
            f"another service answers on {path}", field="api.unix_socket", hint="stop it, or use another path"
        )
    try:
        if await asyncio.to_thread(path.is_socket):
            await asyncio.to_thread(path.unlink)
        await web.UnixSite(runner, path).start()
        await asyncio.to_thread(path.chmod, 0o600)
    except OSError as error:
        raise _no_listener(str(path), "api.unix_socket", error) from error


async def _is_answered(path: pathlib.Path) -> bool:
    """Whether somebody listens there. A dead socket refuses at once: one that keeps us waiting is somebody's, and so
    is one whose answer came while this process stood still."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_unix_connection(str(path)), timeout=1)
    except TimeoutError:
        return True
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _no_listener(where: str, field: str, error: OSError) -> BridgeError:
    reason = error.strerror or "it failed"
    return UnavailableError(
        f"cannot listen on {where}: {reason}", field=field, hint="free that address, or configure another"
    )
