"""A proxy that sits on any CSI socket and misbehaves as a test tells it to.

    async with FaultProxy(driver.socket, folder / "proxy.sock") as proxy:
        proxy.script("CreateSnapshot", lose_reply(StatusCode.UNAVAILABLE), after_effect=True)
        ...
        assert [call.code for call in proxy.called("CreateSnapshot")] == [StatusCode.UNAVAILABLE, StatusCode.OK]

Without a script it passes bytes through. It must not know what a caller or a driver is for.
"""

from __future__ import annotations

from tests.support.faultproxy.faults import (
    aborted,
    crash,
    creation_time_1970,
    creation_time_missing,
    cut_connection,
    delay,
    edit,
    hang,
    hold,
    lose_reply,
    not_ready,
    reordered,
    wrong_source,
)
from tests.support.faultproxy.proxy import FaultProxy
from tests.support.faultproxy.wire import Call

__all__ = [
    "Call",
    "FaultProxy",
    "aborted",
    "crash",
    "creation_time_1970",
    "creation_time_missing",
    "cut_connection",
    "delay",
    "edit",
    "hang",
    "hold",
    "lose_reply",
    "not_ready",
    "reordered",
    "wrong_source",
]
