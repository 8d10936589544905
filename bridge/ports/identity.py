"""Callers of the API: who they are and what they may touch."""

from __future__ import annotations

import dataclasses
from typing import Protocol


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. Empty `clusters`, `namespaces` and `volumes` mean no limit."""

    name: str
    clusters: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    labels: tuple[tuple[str, str], ...] = ()
    """What is known of a workload (its name, its group), copied to what it asks for."""


class Authenticator(Protocol):
    """Checks one kind of credential."""

    async def check(self, bearer: str) -> Caller | None:
        """The caller; None when this kind of credential is not for us to judge.

        DeniedError when it is ours and not good, UnavailableError when it cannot be checked now.
        """
        ...
