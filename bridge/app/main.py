"""The commands that run here: serve, check-config. They turn errors into sentences and exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from bridge.app import config, logs
from bridge.app.config_problem import ConfigError
from bridge.model.failure import BridgeError
from bridge.ports.adapter import Catalogue

log = logging.getLogger(__name__)

FAILED, USAGE, LOCKED = 1, 2, 11


def serve(paths: Sequence[str], catalogue: Catalogue) -> int:
    """Run the service until SIGTERM or SIGINT. Returns the exit code; problems are told on stderr."""
    try:
        settings = config.load(paths or config.default_paths(os.environ), catalogue.sections(), os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a command's answer
        return USAGE
    logs.set_up(settings.service.log_level, settings.service.log_format)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(settings, catalogue))
    except BaseExceptionGroup as group:
        return _explain(group)
    except BridgeError as error:
        print(f"snapbridge: {error}", file=sys.stderr)  # noqa: T201 -- a command's answer
        return LOCKED if error.code == "LOCKED" else FAILED
    return 0


def check_config(paths: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Every problem of the configuration, one text each; empty when it is good."""
    try:
        config.load(paths or config.default_paths(os.environ), catalogue.sections(), os.environ)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


async def _serve(settings: config.Config, catalogue: Catalogue) -> None:
    from bridge.app import wiring

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await wiring.run(settings, catalogue, stop)


def _explain(group: BaseExceptionGroup[BaseException]) -> int:
    """The first cause, as a sentence where it is one of ours; the log has the rest."""
    cause: BaseException = group
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if not isinstance(cause, BridgeError):
        log.error("the service ends after a crash", exc_info=group)
    print(f"snapbridge: {cause}", file=sys.stderr)  # noqa: T201 -- a command's answer
    return LOCKED if isinstance(cause, BridgeError) and cause.code == "LOCKED" else FAILED
