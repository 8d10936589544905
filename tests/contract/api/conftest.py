"""The real application on a real loopback socket, in the test's own loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.api.application import make_app
from bridge.api.settings import ApiSettings
from bridge.ports.identity import Authenticator
from tests.support.api import Counted, Pulse
from tests.support.desk import MemoryDesk


@pytest.fixture
def desk() -> MemoryDesk:
    return MemoryDesk()


@pytest.fixture
def pulse() -> Pulse:
    return Pulse()


@pytest.fixture
def counted() -> Counted:
    return Counted()


@contextlib.asynccontextmanager
async def client_of(
    desk: MemoryDesk,
    settings: ApiSettings | None = None,
    *,
    authenticators: Sequence[Authenticator] = (),
    pulse: Pulse | None = None,
    counted: Counted | None = None,
) -> AsyncIterator[TestClient]:
    app = make_app(
        desk,
        health=pulse or Pulse(),
        measures=counted or Counted(),
        settings=settings or ApiSettings(),
        authenticators=authenticators,
    )
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def client(desk: MemoryDesk, pulse: Pulse, counted: Counted) -> AsyncIterator[TestClient]:
    async with client_of(desk, pulse=pulse, counted=counted) as found:
        yield found
