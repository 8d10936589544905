"""What every request passes through: its id, the host check, errors as problem documents, one log line, a count."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from bridge.api import problems
from bridge.api.auth import Gate
from bridge.api.health import Measures
from bridge.model.failure import BridgeError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALLER_NAME = web.RequestKey("caller_name", str)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def envelope(gate: Gate, measures: Measures) -> Middleware:
    """The outermost middleware. aiohttp passes `handler` by that name."""

    @web.middleware
    async def pass_through(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = _request_id(request)
        try:
            gate.check_host(request)
            response = await handler(request)
        except problems.Problem as problem:
            response = problem.response(request_id)
        except BridgeError as error:
            meant = problems.of_error(error, json_names=request.method == "POST")
            if meant.status == 500:
                log.exception("request failed", extra={"request_id": request_id})
            response = meant.response(request_id)
        except web.HTTPException as error:
            response = problems.of_http(error, request.path).response(request_id)
        except TimeoutError:
            log.warning("request took too long", extra={"request_id": request_id, "path": request.path})
            response = _too_slow().response(request_id)
        except Exception:  # the door of the process: nothing of it may reach the caller
            log.exception("request failed", extra={"request_id": request_id, "path": request.path})
            response = problems.internal().response(request_id)
        response.headers["X-Request-Id"] = request_id
        response.headers.update(_HEADERS)
        _record(request, response.status, time.perf_counter() - started, measures, request_id)
        return response

    return pass_through


def _too_slow() -> problems.Problem:
    return problems.Problem(
        503,
        "the service did not answer in time; what was asked may still happen",
        code="TIMED_OUT",
        hint="repeat it with the same Idempotency-Key",
    )


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.match(given) else secrets.token_hex(8)


def _record(request: web.Request, status: int, seconds: float, measures: Measures, request_id: str) -> None:
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    method = request.method if request.method in ("GET", "HEAD", "POST", "DELETE") else "other"
    measures.request(method=method, route=route, status=status, seconds=seconds)
    level = logging.INFO if method in ("POST", "DELETE") or status >= 500 else logging.DEBUG
    fields = {
        "request_id": request_id,
        "method": method,
        "path": request.path,
        "status": status,
        "seconds": round(seconds, 4),
        "caller": request.get(CALLER_NAME, ""),
    }
    log.log(level, "request answered", extra=fields)
