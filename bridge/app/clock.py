"""This host's clock and identities, for whichever process runs here. It may not know the ledger: roles have none."""

from __future__ import annotations

import asyncio
import time
import uuid


class WallClock:
    """The `Clock` port on this host's clock."""

    def now(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def mint() -> str:
    """A new identity: of a request, an operation, or this process's incarnation."""
    return str(uuid.uuid4())
