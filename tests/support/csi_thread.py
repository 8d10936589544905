"""The scripted CSI plugin beside a service in a process of its own: it runs on a loop in a thread of the test's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support import csi_server

_START_SECONDS = 30.0


@contextlib.contextmanager
def serving(plugin: csi_server.Plugin, path: Path) -> Iterator[csi_server.Plugin]:
    """The plugin on this socket, for as long as the block lasts. Its script may be changed at any time."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="csi-plugin", daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(csi_server.start(plugin, path), loop).result(_START_SECONDS)
    try:
        yield plugin
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(grace=None), loop).result(_START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START_SECONDS)
        loop.close()
