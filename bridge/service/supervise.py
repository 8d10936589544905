"""Supervision: named tasks that may not end by themselves. One that does takes the service down, loudly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from bridge.model.failure import BridgeError

log = logging.getLogger(__name__)


class UnexpectedEndError(RuntimeError):
    """A task that should run for ever has ended."""


async def guard(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run it; a quiet end is an error, a crash is logged where it happened."""
    try:
        await work()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        extra = {"action": "supervise", "task": name}
        if _is_sentence(error):
            log.error("a supervised task ended", extra={**extra, "error": str(error)})
        else:
            log.exception("a supervised task crashed", extra=extra)
        raise
    raise UnexpectedEndError(f"the task {name!r} ended by itself")


def _is_sentence(error: BaseException) -> bool:
    """Whether it is for people as it is: nothing but errors of ours, no bug."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(BridgeError)[1] is None
    return isinstance(error, BridgeError)


async def run_until(
    stop: asyncio.Event,
    tasks: Mapping[str, Callable[[], Awaitable[None]]],
    *,
    first: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run all until `stop` is set or one fails; then cancel the rest. `first` runs before the cancelling."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(guard(name, work), name=name) for name, work in tasks.items()]
        await stop.wait()
        if first is not None:
            await first()
        for task in running:
            task.cancel()
