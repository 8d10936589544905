"""The commands that run here: serve, check-config. They turn errors into sentences and exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence

import bridge
from bridge.app import config, logs, node_config
from bridge.app.config_problem import ConfigError
from bridge.model.failure import BridgeError
from bridge.node.settings import AgentSettings
from bridge.ports.adapter import Catalogue
from bridge.ports.role import RolePlan

log = logging.getLogger(__name__)

COLLECT_AFTER_OBJECTS = 10_000
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
    return _run(_serve(settings, catalogue))


def node(paths: Sequence[str], catalogue: Catalogue) -> int:
    """Run this host's node agent until SIGTERM or SIGINT. Returns the exit code."""
    try:
        document, settings = node_config.load(
            paths or config.default_paths(os.environ), bridge.__version__, catalogue.node_sections(), os.environ
        )
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a command's answer
        return USAGE
    logs.set_up(document.log_level, document.log_format)
    return _run(_node(document, settings, catalogue))


def role(plan: RolePlan) -> int:
    """Run one role until SIGTERM or SIGINT. Returns the exit code; problems are told on stderr."""
    logs.set_up(plan.log_level, "auto")
    return _run(_role(plan))


def check_config(paths: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Every problem of the configuration, one text each; empty when it is good."""
    try:
        config.load(paths or config.default_paths(os.environ), catalogue.sections(), os.environ)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def _run(work: Coroutine[None, None, None]) -> int:
    # gRPC's core writes plain lines to stderr among our JSON; it reads this when it is first imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        asyncio.run(work)
    except BaseExceptionGroup as group:
        return _explain(group)
    except BridgeError as error:
        return _explain(error)
    return 0


async def _serve(settings: config.Config, catalogue: Catalogue) -> None:
    from bridge.app import replica

    _spare_collector()
    await replica.serve_alone_or_in_turn(settings, catalogue, _stopped_by_signals())


async def _node(document: node_config.NodeDocument, settings: AgentSettings, catalogue: Catalogue) -> None:
    from bridge.app import wiring

    await wiring.run_node(document, settings, catalogue, _stopped_by_signals())


async def _role(plan: RolePlan) -> None:
    from bridge.app import roles

    _spare_collector()
    await roles.run(plan, _stopped_by_signals())


def _spare_collector() -> None:
    """Let the garbage collector leave alone what was imported, and not run for every few objects of a page of a list.

    It still runs; nearly everything here is freed without it.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 20)


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _explain(error: BaseException) -> int:
    """The first cause, as a sentence where it is one of ours; the log has the rest."""
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if not isinstance(cause, BridgeError):
        log.error("the service ends after a crash", exc_info=error)
    print(f"snapbridge: {cause}", file=sys.stderr)  # noqa: T201 -- a command's answer
    return LOCKED if isinstance(cause, BridgeError) and cause.code == "LOCKED" else FAILED
