"""What went wrong, as data. A kind decides what may follow; text is for people and never decides."""

from __future__ import annotations

import dataclasses
import enum


class FailureKind(enum.Enum):
    """What a failed call leaves behind (DESIGN section 4)."""

    REFUSED = "refused"
    """The plugin looked at the call and did nothing."""
    UNSURE = "unsure"
    """It may have been done: a time-out, a lost reply, an internal error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `code` is stable (a gRPC code's name or one of ours), `hint` says what to do next."""

    kind: FailureKind
    code: str
    message: str
    hint: str = ""
    leftover: str = ""
    """The handle of what the call made all the same, where that is not what was asked."""

    def __str__(self) -> str:
        text = f"{self.message} ({self.code})" if self.code else self.message
        return f"{text}. {self.hint}" if self.hint else text


class BridgeError(Exception):
    """The bridge could not do what was asked."""

    code = "FAILED"

    def __init__(self, message: str = "", *, hint: str = "", field: str = "") -> None:
        self.message = message or (self.__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        self.field = field
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class InvalidError(BridgeError):
    """What was asked is not valid."""

    code = "INVALID"


class UnsupportedError(InvalidError):
    """The cluster or the driver cannot do this at all."""

    code = "UNSUPPORTED"


class NotFoundError(BridgeError):
    """What was named does not exist."""

    code = "NOT_FOUND"


class ConflictError(BridgeError):
    """The name is taken, or the object is in use or has changed meanwhile."""

    code = "CONFLICT"


class PinnedError(ConflictError):
    """It is pinned: nobody may delete it until it is unpinned."""

    code = "PINNED"


class InUseError(ConflictError):
    """Something that exists relies on it."""

    code = "IN_USE"


class LockedError(BridgeError):
    """Another process holds what this one needs for itself."""

    code = "LOCKED"


class DeniedError(BridgeError):
    """The caller is not allowed to do this."""

    code = "DENIED"


class UnavailableError(BridgeError):
    """A server that is needed does not answer; trying again may help."""

    code = "UNAVAILABLE"


class ElsewhereError(BridgeError):
    """Another controller acts on it; we do nothing until that changes."""

    code = "ELSEWHERE"


class NotSyncedError(UnavailableError):
    """The cluster's state is not read yet; the pass must come back later."""

    code = "NOT_SYNCED"
