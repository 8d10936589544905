"""What goes wrong: context managers around a phase. Each ends by itself, so that patience has a beginning."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from aiohttp import web

from tests.support import faultproxy, httpproxy
from tests.support.campaign.field import Field

Fault = Callable[[Field], contextlib.AbstractContextManager[None]]

AWAY_SECONDS = 2.0


@contextlib.contextmanager
def calm(_field: Field) -> Iterator[None]:
    """Nothing goes wrong."""
    yield


@contextlib.contextmanager
def api_server_killed(field: Field) -> Iterator[None]:
    """kill -9 in the middle, and back after a while."""
    yield
    field.plane.apiserver.kill()
    time.sleep(AWAY_SECONDS)
    field.plane.apiserver.start()


@contextlib.contextmanager
def etcd_slow(field: Field) -> Iterator[None]:
    """etcd stands still for three quarters of the time."""
    over = threading.Event()

    def stutter() -> None:
        while not over.is_set():
            field.plane.etcd.pause()
            time.sleep(0.3)
            field.plane.etcd.resume()
            time.sleep(0.1)

    thread = threading.Thread(target=stutter, daemon=True)
    thread.start()
    try:
        yield
        time.sleep(field.storm_seconds)
    finally:
        over.set()
        thread.join(30.0)


@contextlib.contextmanager
def watches_cut(field: Field) -> Iterator[None]:
    """Every watch ends in the middle of a line, again and again."""
    field.api.stream_seconds = 0.2
    yield
    time.sleep(field.storm_seconds)
    field.api.stream_seconds = None


def refusing(status: int, reason: str, every: int = 3, *, reads: bool = False, retry_after: str = "") -> Fault:
    """Every so many writes (or watches and lists) are refused and do not reach the server."""

    @contextlib.contextmanager
    def fault(field: Field) -> Iterator[None]:
        count = itertools.count(1)

        def refuse(request: web.Request) -> web.Response | None:
            concerned = ("watch" in request.query) if reads else request.method in httpproxy.WRITES
            if not concerned or next(count) % every:
                return None
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason}
            headers = {"Retry-After": retry_after} if retry_after else {}
            return web.json_response({**body, "message": f"{reason}, says the proxy"}, status=status, headers=headers)

        field.api.refuse = refuse
        yield
        time.sleep(field.storm_seconds)
        field.api.refuse = lambda _request: None

    return fault


@contextlib.contextmanager
def answers_lost(field: Field) -> Iterator[None]:
    """Every third write takes effect and its answer never arrives."""
    count = itertools.count(1)
    field.api.strike = lambda moment, _what: moment == "after" and next(count) % 3 == 0
    yield
    time.sleep(field.storm_seconds)
    field.api.strike = lambda _moment, _what: False


def reply_lost(code: grpc.StatusCode, method: str = "CreateSnapshot") -> Fault:
    """The driver has done its work each time, and the caller hears this code instead, for a while."""

    @contextlib.contextmanager
    def fault(field: Field) -> Iterator[None]:
        field.csi.script(method, faultproxy.lose_reply(code), after_effect=True, times=None)
        yield
        time.sleep(field.storm_seconds)
        field.csi.clear()

    return fault


@contextlib.contextmanager
def first_replies_lost_then_refused(field: Field) -> Iterator[None]:
    """The first create of each volume takes effect and is answered INTERNAL; the driver says no for a while."""
    for volume in field.volumes:
        mine = _of(volume)
        lost = faultproxy.lose_reply(grpc.StatusCode.INTERNAL)
        field.csi.script("CreateSnapshot", lost, after_effect=True, when=mine)
        refused = faultproxy.lose_reply(grpc.StatusCode.INVALID_ARGUMENT)
        field.csi.script("CreateSnapshot", refused, skip=1, times=2, when=mine)
    yield
    time.sleep(field.storm_seconds)
    field.csi.clear()


def _of(volume: str) -> Callable[[object], bool]:
    return lambda asked: getattr(asked, "source_volume_id", "") == volume


@contextlib.contextmanager
def slow_cut(field: Field) -> Iterator[None]:
    """A create takes two seconds."""
    field.csi.script("CreateSnapshot", faultproxy.delay(2.0), times=None)
    yield
    time.sleep(field.storm_seconds)
    field.csi.clear()


@contextlib.contextmanager
def not_ready(field: Field) -> Iterator[None]:
    """Cut at once, ready only after a while."""
    for method in ("CreateSnapshot", "GetSnapshot", "ListSnapshots"):
        field.csi.script(method, faultproxy.not_ready(), times=None)
    yield
    time.sleep(field.storm_seconds)
    field.csi.clear()


@contextlib.contextmanager
def driver_killed(field: Field) -> Iterator[None]:
    """kill -9 of the plugin during the cuts."""
    field.csi.script("CreateSnapshot", faultproxy.delay(0.2), times=None)
    yield
    time.sleep(0.5)
    field.driver.kill()
    time.sleep(AWAY_SECONDS)
    field.driver.start()
    field.csi.clear()


def killed_at(method: str, skip: int = 2) -> Fault:
    """kill -9 of the driver half when the driver has done its work and nobody has heard of it."""

    @contextlib.contextmanager
    def fault(field: Field) -> Iterator[None]:
        struck = threading.Event()

        def kill() -> None:
            if not struck.is_set():
                struck.set()
                field.stack.kill_driver_half()

        field.csi.script(method, faultproxy.crash(kill), after_effect=True, skip=skip)
        yield
        struck.wait(30.0)

    return fault


@contextlib.contextmanager
def all_killed(field: Field) -> Iterator[None]:
    """kill -9 of everything of the stack, three times."""
    yield
    for _ in range(3):
        time.sleep(0.6)
        for one in field.stack.processes:
            one.kill()


@contextlib.contextmanager
def cluster_half_killed(field: Field) -> Iterator[None]:
    """kill -9 of the half that makes the content objects (of the whole, where there is one process)."""
    yield
    for _ in range(3):
        time.sleep(0.4)
        field.stack.processes[0].kill()
