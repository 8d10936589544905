"""What came of one plugin call: done with a value, or failed with a kind. Exceptions are for bugs."""

from __future__ import annotations

import dataclasses
from typing import Generic, TypeVar

from bridge.model.failure import Failure

T_co = TypeVar("T_co", covariant=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Done(Generic[T_co]):
    """The call was answered well."""

    value: T_co


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """The call failed; `failure.kind` says whether it may have taken effect."""

    failure: Failure


Outcome = Done[T_co] | Failed
