"""Secrets, by reference. A value lives from here to one call, and is never logged or kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bridge.model.secret import SecretRef


class Secrets(Protocol):
    """Resolves references of some schemes."""

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        """The secret's map; empty for an empty reference.

        Raises NotFoundError when the secret does not exist, UnavailableError when its store does not answer,
        InvalidError when it is not a map of strings or no resolver knows the scheme. No error shows a value.
        """
        ...
