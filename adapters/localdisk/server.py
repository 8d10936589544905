"""Serves one driver on a unix socket until told to stop. It must not do any work of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from grpc import aio

from adapters.localdisk import answers, driver, services, settings, store
from adapters.localdisk.controller import Controller
from adapters.localdisk.freeze import GuardError
from adapters.localdisk.group_controller import GroupController
from adapters.localdisk.identity import Identity
from adapters.localdisk.layout import StateDirError
from adapters.localdisk.node import Node
from adapters.localdisk.snapshot_metadata import SnapshotMetadata
from adapters.localdisk.work import Work
from bridge.pb.csi.v1 import csi_pb2_grpc

_GRACE_SECONDS = 10.0
_PROBE_SECONDS = 1.0
_log = logging.getLogger(__name__)


async def serve(
    options: settings.Settings,
    *,
    stop: asyncio.Event | None = None,
    started: Callable[[], None] | None = None,
    steps: store.Steps = store.no_step,
) -> None:
    """Runs a driver until `stop` is set or the task is cancelled; calls in flight are finished first.

    `started` is called when the socket answers. `steps` is for tests only. Raises SettingsError, StateDirError or
    StoreError when it cannot start.
    """
    path = settings.socket_path(options.endpoint)
    opened = await asyncio.to_thread(driver.open_driver, options, steps=steps)
    work = Work(options.threads)
    try:
        server = _server(services.Shared(opened, work))
        await asyncio.to_thread(_free_socket, path)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        path.chmod(0o660)
        try:
            _log.info("serving on %s", options.endpoint)
            if started is not None:
                started()
            await (stop or asyncio.Event()).wait()
        finally:
            await asyncio.shield(server.stop(_GRACE_SECONDS))
    finally:
        await work.close()
        await asyncio.to_thread(opened.close)


def _server(shared: services.Shared) -> aio.Server:
    server = aio.server(interceptors=[answers.Answers()])
    csi_pb2_grpc.add_IdentityServicer_to_server(Identity(shared.driver), server)
    csi_pb2_grpc.add_ControllerServicer_to_server(Controller(shared), server)
    csi_pb2_grpc.add_GroupControllerServicer_to_server(GroupController(shared), server)
    csi_pb2_grpc.add_SnapshotMetadataServicer_to_server(SnapshotMetadata(shared), server)
    csi_pb2_grpc.add_NodeServicer_to_server(Node(shared), server)
    return server


def _free_socket(path: Path) -> None:
    """Removes a socket that a killed driver left. Raises SettingsError if it answers, or is something else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise settings.SettingsError(f"--endpoint: {path} exists and is not a socket: move it away")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise settings.SettingsError(f"--endpoint: another server answers on {path}: stop it first")


def _raise_file_limit() -> None:
    """Copying a tree holds two descriptors per level of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(options: settings.Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(options, stop=stop)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns 0 after a clean stop, 2 for a wrong option, 1 if it could not start or run."""
    try:
        options = settings.parse(sys.argv[1:] if argv is None else argv)
    except settings.SettingsError as error:
        sys.stderr.write(f"localdisk: {error}\n")
        return 2
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _raise_file_limit()
    logging.getLogger("grpc").setLevel(logging.WARNING)
    try:
        asyncio.run(_run(options))
    except settings.SettingsError as error:
        sys.stderr.write(f"localdisk: {error}\n")
        return 2
    except (StateDirError, store.StoreError, GuardError, OSError) as error:
        sys.stderr.write(f"localdisk: {error}\n")
        return 1
    return 0
