"""What cannot be read as HTTP is answered as a problem too. aiohttp's own answer would quote the sender's bytes."""

from __future__ import annotations

import asyncio
import logging
import secrets

from aiohttp import web

from bridge.api import problems

log = logging.getLogger(__name__)


class Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer and close. The text of `exc` may hold a credential that did not fit: it is not logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; no other can be sent")
        request_id = secrets.token_hex(8)
        fields = {"request_id": request_id, "status": status, "error": type(exc).__name__}
        if status >= 500:
            log.error("request failed outside of the application", extra=fields, exc_info=exc)
            problem = problems.internal()
        else:
            log.info("not a request", extra=fields)
            hint = "check the method, the path and the headers; each line may have 8,190 bytes"
            problem = problems.Problem(status, "this is not a valid HTTP request", hint=hint)
        response = problem.response(request_id)
        response.force_close()
        response.headers["X-Request-Id"] = request_id
        return response


class _Server(web.Server):
    """The factory of connections."""

    def __call__(self) -> web.RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner, with our connections."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        loop = asyncio.get_running_loop()
        return _Server(plain.request_handler, request_factory=plain.request_factory, loop=loop, **plain._kwargs)
