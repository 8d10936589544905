"""Errors as RFC 9457 problem documents. The one place that turns our errors into statuses."""

from __future__ import annotations

import dataclasses
import http
from collections.abc import Mapping

import orjson
from aiohttp import web
from pydantic.alias_generators import to_camel

from bridge.model import failure

CONTENT_TYPE = "application/problem+json"

BY_ERROR: tuple[tuple[type[failure.BridgeError], int], ...] = (
    (failure.InvalidError, 422),
    (failure.NotFoundError, 404),
    (failure.ConflictError, 409),
    (failure.DeniedError, 403),
    (failure.UnavailableError, 503),
    (failure.ElsewhereError, 409),
)
BY_CODE: Mapping[str, int] = {"PRECONDITION_FAILED": 412, "LOCKED": 423, "RESOURCE_EXHAUSTED": 429}
"""Codes that say more than their class."""

RETRYABLE = frozenset({408, 429, 503, 504})
RETRY_AFTER_SECONDS = 2

CODES: Mapping[int, str] = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "DENIED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "TIMED_OUT",
    411: "LENGTH_REQUIRED",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    417: "EXPECTATION_FAILED",
    422: "INVALID",
    424: "FAILED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "NOT_YET",
}


@dataclasses.dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field. `field` is a path such as `labels.app`."""

    field: str
    message: str
    hint: str = ""


class Problem(Exception):
    """An answer that is not a success. `detail` and `hint` are for the caller: no internal texts."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        hint: str = "",
        fields: tuple[FieldProblem, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or CODES.get(status, "FAILED")
        self.hint = hint
        self.fields = fields
        self.headers = dict(headers or {})
        if status in (429, 503, 504):
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))

    def document(self, request_id: str) -> dict[str, object]:
        """The JSON document. Every member is always there, so that clients need no guesses."""
        return {
            "type": "urn:snapbridge:problem:" + self.code.lower().replace("_", "-"),
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "hint": self.hint,
            "field": self.fields[0].field if self.fields else "",
            "retryable": self.status in RETRYABLE,
            "errors": [dataclasses.asdict(item) for item in self.fields],
            "requestId": request_id,
        }

    def response(self, request_id: str) -> web.Response:
        """The answer that carries it."""
        body = orjson.dumps(self.document(request_id))
        return web.Response(status=self.status, body=body, headers=self.headers, content_type=CONTENT_TYPE)


def of_error(error: failure.BridgeError, *, json_names: bool = False) -> Problem:
    """The problem that one of our own errors means; `json_names`: its field is one of a JSON body."""
    status = BY_CODE.get(error.code, 0)
    if not status:
        status = next((found for kind, found in BY_ERROR if isinstance(error, kind)), 500)
    if status == 500:
        return internal()
    field = to_camel(error.field) if json_names and "_" in error.field else error.field
    fields = (FieldProblem(field, error.message, error.hint),) if field else ()
    return Problem(status, error.message, code=error.code, hint=error.hint, fields=fields)


def internal() -> Problem:
    """A defect of ours. The text stays in the log, under the request's id."""
    return Problem(
        500, "the service met an error of its own", hint="look in the service's log for the request id below"
    )


def unauthenticated(detail: str, *, hint: str, rejected: bool = False) -> Problem:
    """No credential, or (`rejected`) one that is not good."""
    challenge = 'Bearer realm="snapbridge"' + (', error="invalid_token"' if rejected else "")
    return Problem(401, detail, hint=hint, headers={"WWW-Authenticate": challenge})


def of_http(error: web.HTTPException, path: str) -> Problem:
    """What aiohttp itself refuses: unknown route, wrong method, a body over the limit."""
    if error.status == 404:
        return Problem(404, f"there is nothing at {path[:200]}", code="NO_ROUTE", hint="see /v1/openapi.json")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{error.method[:20]} is not possible here"
        return Problem(405, detail, hint=f"possible: {allowed}", headers={"Allow": allowed})
    if error.status == 413:
        return Problem(
            413,
            "the body is too large",
            hint="send less; the limit is api.body_limit in the service's config (1 MiB)",
        )
    if error.status >= 500:
        return internal()
    return Problem(error.status, error.reason or "the request cannot be served")
