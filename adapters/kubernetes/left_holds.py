"""Holds on claims that no snapshot stands for any more: let go at the start, and now and then.

Each turn lets its own hold go. What is left here has no turn: its VolumeSnapshot was taken away by force, or by a
controller that died before it had freed the claim. Such a claim could never be deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from adapters.kubernetes.claims import ClaimHolds
from adapters.kubernetes.facts import path
from adapters.kubernetes.ownership import Ownership
from adapters.kubernetes.world import World
from bridge.model.failure import BridgeError

Object = dict[str, Any]
log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
FIRST_LOOK_SECONDS = 0.5


class LeftHolds:
    """Looks at the claims that are held. It acts for the drivers that are ours and for no other."""

    def __init__(
        self, world: World, claims: ClaimHolds, ownership: Ownership, *, all_read: Callable[[], bool]
    ) -> None:
        """`all_read`: whether everything that may need a claim is known."""
        self._world = world
        self._claims = claims
        self._ownership = ownership
        self._all_read = all_read

    async def run(self) -> None:
        """Look until cancelled; soon, while not all can be judged yet."""
        while True:
            judged = self._all_read() and await self.look()
            await asyncio.sleep(LOOK_SECONDS if judged else FIRST_LOOK_SECONDS)

    async def look(self) -> bool:
        """Let go of what nobody needs. Returns whether it was known of each claim whether it is our business."""
        judged = True
        for claim in self._world.held_claims():
            driver = self._driver(claim)
            if not driver:
                continue
            ours = self._ownership.acts(driver)
            judged = judged and ours is not None
            if ours:
                await self._drop(claim["metadata"])
        return judged

    async def _drop(self, metadata: Object) -> None:
        try:
            await self._claims.drop(metadata["namespace"], metadata["name"], "")
        except BridgeError as error:
            place = f"{metadata['namespace']}/{metadata['name']}"
            log.info("a claim that nobody needs cannot be let go yet", extra={"claim": place, "error": str(error)})

    def _driver(self, claim: Object) -> str:
        volume = self._world.volumes.get("", str(path(claim, "spec", "volumeName") or ""))
        return str(path(volume, "spec", "csi", "driver") or "")
