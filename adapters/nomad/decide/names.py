"""Names of the snapshots that our commands ask for. Pure text."""

from __future__ import annotations

import hashlib


def told_apart(volume: str, shown: str) -> str:
    """What a name needs beside `shown`, which other ids may look like too; empty where it is the id itself."""
    return "" if shown == volume else hashlib.sha256(volume.encode()).hexdigest()[:6]
