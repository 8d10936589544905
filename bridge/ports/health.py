"""What the service tells of its own state: the source of /livez and /readyz."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. An empty sentence means that all is well with it."""

    name: str
    sentence: str = ""
    fatal: bool = True
    """Whether the service is not ready because of it. A dead plugin is not: the others go on."""


class Health(Protocol):
    """Answers from memory, at once; it never asks another process."""

    def alive(self) -> str:
        """Empty while the supervised tasks run; else the sentence that says which one died."""
        ...

    def checks(self) -> Sequence[Check]:
        """Everything that readiness depends on, and what people should know beside it, in a stable order."""
        ...
