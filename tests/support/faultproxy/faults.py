"""The faults. Each is made by a function and given to `FaultProxy.script`; each takes part in one call.

`after_effect` of the script decides where a fault strikes: before the driver has seen the call, or when it has
answered. Faults that change a reply always strike after.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support.faultproxy.wire import Call, Method, Reply

_LOOK_SECONDS = 0.02

# Passes a request (None: the caller's own bytes) to the next fault, at last to the driver.
Forward = Callable[[bytes | None], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Passage:
    """One call on its way through a fault."""

    call: Call
    method: Method | None
    forward: Forward
    after_effect: bool
    cut: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A named way to go wrong."""

    name: str
    act: Callable[[Passage], Awaitable[Reply]]


def lose_reply(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, text: str = "reply lost by the proxy") -> Fault:
    """The caller gets this code; with `after_effect` the driver has done its work all the same."""

    async def act(passage: Passage) -> Reply:
        if passage.after_effect:
            await passage.forward(None)
        return Reply(code, text)

    return Fault(f"lose_reply({code.name})", act)


def aborted() -> Fault:
    """The driver says that another operation is pending."""
    return lose_reply(grpc.StatusCode.ABORTED, "another operation is pending, says the proxy")


def delay(seconds: float) -> Fault:
    """The call takes longer."""

    async def act(passage: Passage) -> Reply:
        if passage.after_effect:
            reply = await passage.forward(None)
            await asyncio.sleep(seconds)
            return reply
        await asyncio.sleep(seconds)
        return await passage.forward(None)

    return Fault(f"delay({seconds:g})", act)


def hang() -> Fault:
    """No answer comes, until the caller's deadline or the end of the proxy."""

    async def act(passage: Passage) -> Reply:
        if passage.after_effect:
            await passage.forward(None)
        await asyncio.Event().wait()
        raise AssertionError("never set")

    return Fault("hang", act)


def hold(released: threading.Event) -> Fault:
    """The call stands still until the test lets it go on: for moments that a `delay` would have to be long for."""

    async def until_released() -> None:
        while not released.is_set():  # noqa: ASYNC110 - it may be set by another thread
            await asyncio.sleep(_LOOK_SECONDS)

    async def act(passage: Passage) -> Reply:
        if passage.after_effect:
            reply = await passage.forward(None)
            await until_released()
            return reply
        await until_released()
        return await passage.forward(None)

    return Fault("hold", act)


def cut_connection() -> Fault:
    """Every connection of the proxy is closed; callers may connect again at once."""

    async def act(passage: Passage) -> Reply:
        if passage.after_effect:
            await passage.forward(None)
        passage.cut()
        await asyncio.Event().wait()  # ended by the cut
        raise AssertionError("never set")

    return Fault("cut_connection", act)


def crash(kill: Callable[[], object]) -> Fault:
    """Calls `kill` (plain or async), which ends the driver. Before the effect the call then meets a dead socket."""

    async def act(passage: Passage) -> Reply:
        if passage.after_effect:
            await passage.forward(None)
        outcome = kill()
        if inspect.isawaitable(outcome):
            await outcome
        if passage.after_effect:
            return Reply(grpc.StatusCode.UNAVAILABLE, "the driver was killed after its work, by the proxy")
        return await passage.forward(None)

    return Fault("crash", act)


def edit(change: Callable[[Any], None], name: str = "edit") -> Fault:
    """Changes the driver's reply, if it was a good one, in place."""

    async def act(passage: Passage) -> Reply:
        reply = await passage.forward(None)
        if reply.ok and passage.method is not None:
            message = passage.method.response.FromString(reply.body)
            change(message)
            reply.body = message.SerializeToString()
        return reply

    return Fault(name, act)


def snapshots_in(message: Message) -> Iterable[pb.Snapshot]:
    """The snapshots in a reply of CreateSnapshot, GetSnapshot, ListSnapshots or of a group call."""
    match message:
        case pb.CreateSnapshotResponse() | pb.GetSnapshotResponse():
            return [message.snapshot]
        case pb.ListSnapshotsResponse():
            return [entry.snapshot for entry in message.entries]
        case pb.CreateVolumeGroupSnapshotResponse() | pb.GetVolumeGroupSnapshotResponse():
            return list(message.group_snapshot.snapshots)
    raise TypeError(f"no snapshots in {type(message).__name__}: script this fault for a snapshot call")


def not_ready() -> Fault:
    """The snapshots in the reply are not ready to use yet; `times` says for how many calls."""

    def change(message: Any) -> None:
        for snapshot in snapshots_in(message):
            snapshot.ready_to_use = False
        if isinstance(message, pb.CreateVolumeGroupSnapshotResponse | pb.GetVolumeGroupSnapshotResponse):
            message.group_snapshot.ready_to_use = False

    return edit(change, "not_ready")


def wrong_source(volume_id: str) -> Fault:
    """The snapshots in the reply claim to be of another volume."""

    def change(message: Any) -> None:
        for snapshot in snapshots_in(message):
            snapshot.source_volume_id = volume_id

    return edit(change, "wrong_source")


def creation_time_missing() -> Fault:
    """The snapshots in the reply have no creation time, though CSI requires one."""

    def change(message: Any) -> None:
        for snapshot in snapshots_in(message):
            snapshot.ClearField("creation_time")

    return edit(change, "creation_time_missing")


def creation_time_1970() -> Fault:
    """The snapshots in the reply were cut at second 0, as drivers say that do not know."""

    def change(message: Any) -> None:
        for snapshot in snapshots_in(message):
            snapshot.creation_time.Clear()
            snapshot.creation_time.SetInParent()

    return edit(change, "creation_time_1970")


def reordered(seed: int = 1) -> Fault:
    """ListSnapshots in another order, across pages too: whoever stops at a familiar entry, or early, loses some.

    The proxy asks the driver for everything and cuts pages itself; the order depends on the seed alone.
    """

    async def act(passage: Passage) -> Reply:
        request = passage.call.request
        if not isinstance(request, pb.ListSnapshotsRequest):
            raise TypeError("reordered is for ListSnapshots only")
        whole = pb.ListSnapshotsRequest()
        whole.CopyFrom(request)
        whole.max_entries, whole.starting_token = 0, ""
        reply = await passage.forward(whole.SerializeToString())
        if not reply.ok:
            return reply
        message = pb.ListSnapshotsResponse.FromString(reply.body)
        entries = list(message.entries)
        random.Random(seed).shuffle(entries)
        start = int(request.starting_token.removeprefix("shuffled-") or 0)
        stop = start + request.max_entries if request.max_entries else len(entries)
        page = pb.ListSnapshotsResponse(
            entries=entries[start:stop], next_token=f"shuffled-{stop}" if stop < len(entries) else ""
        )
        reply.body = page.SerializeToString()
        return reply

    return Fault(f"reordered({seed})", cast(Callable[[Passage], Awaitable[Reply]], act))
