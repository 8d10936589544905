"""Delays, as functions of counts. Jitter is not wanted: keys fail at their own times."""

from __future__ import annotations

RETRY_FIRST_SECONDS = 1.0
RETRY_MOST_SECONDS = 300.0
TROUBLE_SECONDS = 15.0
"""How often to look again at a request that cannot be carried out; its watch usually wakes it sooner."""
UNKNOWN_PLUGIN_SECONDS = 5.0
IN_USE_SECONDS = 10.0


def retry_delay(
    failures: int, first_seconds: float = RETRY_FIRST_SECONDS, most_seconds: float = RETRY_MOST_SECONDS
) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 … 300 (as client-go's per-item limiter).

    >>> [retry_delay(n) for n in (0, 1, 2, 3, 99)], retry_delay(3, 0.5, 60.0)
    ([0.0, 1.0, 2.0, 4.0, 300.0], 2.0)
    """
    if failures <= 0:
        return 0.0
    return min(first_seconds * 2.0 ** min(failures - 1, 30), most_seconds)


def poll_delay(polls: int, first_seconds: float, most_seconds: float) -> float:
    """Seconds to the next look at a snapshot that is cut but not ready. Not an error back-off: it stays short.

    >>> [poll_delay(n, 0.25, 10.0) for n in (1, 2, 3, 20)]
    [0.25, 0.375, 0.5625, 10.0]
    """
    return min(first_seconds * 1.5 ** min(max(polls - 1, 0), 60), most_seconds)
