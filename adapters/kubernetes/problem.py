"""What the API server says no with, as data. Its reason decides what may follow; its text is for people."""

from __future__ import annotations

from typing import Any

from bridge.model import failure

CONFLICT_REASONS = frozenset({"Conflict", "AlreadyExists"})


class ApiError(failure.BridgeError):
    """The API server refused a request."""

    code = "API_ERROR"

    def __init__(self, status: int, reason: str, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message or f"the API server answered {status} {reason}")
        self.status = status
        self.reason = reason or _REASONS.get(status, "")
        self.retry_after_seconds = retry_after_seconds

    @property
    def missing(self) -> bool:
        """The object (or the whole resource) does not exist."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """A precondition failed, or the name is taken."""
        return self.status == 409

    @property
    def expired(self) -> bool:
        """The resourceVersion or the continue token is too old: list again."""
        return self.status == 410


_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Gone",
    422: "Invalid",
    429: "TooManyRequests",
}


def as_bridge_error(error: ApiError, what: str) -> failure.BridgeError:
    """The same refusal in the words of the ports. `what` says what was tried."""
    text = f"{what}: {error.message}"
    if error.missing:
        return failure.NotFoundError(text)
    if error.conflict:
        return failure.ConflictError(text)
    if error.status in (400, 422):
        return failure.InvalidError(text)
    if error.status == 403:
        return failure.DeniedError(text, hint="Give this service account the rule that the message names (RBAC)")
    return failure.UnavailableError(text)


_MALFORMED_HINT = "Correct the field, or delete the object; nothing is done with it before"


class MalformedError(failure.InvalidError):
    """An object cannot be acted on. `about` is that object, `snapshot` the VolumeSnapshot (or the group) it stops."""

    def __init__(self, kind: str, about: dict[str, Any], wrong: str, snapshot: dict[str, Any] | None = None) -> None:
        text = f"{kind} {about['metadata']['name']} is malformed: {wrong}"
        super().__init__(text, hint=_MALFORMED_HINT, field=wrong.partition(" ")[0])
        self.about = about
        self.snapshot = snapshot

    @property
    def driver(self) -> str:
        """Whose business it is, where that can be told."""
        spec = self.about.get("spec")
        driver = spec.get("driver") if isinstance(spec, dict) else None
        return driver if isinstance(driver, str) else ""
