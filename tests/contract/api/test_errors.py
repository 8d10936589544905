"""What callers see when something goes wrong, and what they never see."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bridge.api.settings import ApiSettings
from bridge.model import failure
from bridge.ports.health import Check
from tests.contract.api.conftest import client_of
from tests.support.desk import MemoryDesk, error_of


@pytest.mark.parametrize(
    ("error", "status", "code", "retryable"),
    [
        (error_of(failure.InvalidError), 422, "INVALID", False),
        (error_of(failure.NotFoundError), 404, "NOT_FOUND", False),
        (error_of(failure.ConflictError), 409, "CONFLICT", False),
        (error_of(failure.ConflictError, "PRECONDITION_FAILED"), 412, "PRECONDITION_FAILED", False),
        (error_of(failure.ConflictError, "LOCKED"), 423, "LOCKED", False),
        (error_of(failure.DeniedError), 403, "DENIED", False),
        (error_of(failure.UnavailableError), 503, "UNAVAILABLE", True),
        (error_of(failure.UnavailableError, "RESOURCE_EXHAUSTED"), 429, "RESOURCE_EXHAUSTED", True),
        (error_of(failure.NotSyncedError), 503, "NOT_SYNCED", True),
        (TimeoutError(), 503, "TIMED_OUT", True),
    ],
    ids=lambda value: getattr(value, "code", None),
)
async def test_our_own_errors(client, desk, error, status, code, retryable):
    desk.broken = error
    answer = await client.get("/v1/snapshots")
    body = await answer.json()
    assert (answer.status, body["code"], body["retryable"]) == (status, code, retryable)
    assert answer.content_type == "application/problem+json"
    assert ("Retry-After" in answer.headers) is (status in (429, 503))
    assert body["hint"]


@pytest.mark.parametrize(
    "error", [RuntimeError("the password is hunter2"), failure.BridgeError("hunter2"), KeyError("hunter2")]
)
async def test_a_defect_leaks_nothing_and_is_found_in_the_log_by_its_id(client, desk, caplog, error):
    desk.broken = error
    answer = await client.get("/v1/snapshots", headers={"X-Request-Id": "call-7"})
    assert answer.status == 500
    text = await answer.text()
    assert "hunter2" not in text
    assert (await answer.json())["requestId"] == answer.headers["X-Request-Id"] == "call-7"
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.request_id for record in records] == ["call-7"]
    assert "hunter2" in records[0].exc_text


async def test_an_id_that_could_forge_a_log_line_is_replaced(client):
    answer = await client.get("/v1/whoami", headers={"X-Request-Id": "a b" + "c" * 100})
    assert len(answer.headers["X-Request-Id"]) == 16


async def test_a_desk_that_does_not_answer_is_given_up(counted):
    class Stuck(MemoryDesk):
        async def snapshots(self, caller, which, *, limit, token):
            await asyncio.sleep(60)
            raise AssertionError

    async with client_of(Stuck(), ApiSettings(request_seconds=0.05), counted=counted) as client:
        answer = await client.get("/v1/snapshots")
        assert (answer.status, (await answer.json())["code"]) == (503, "TIMED_OUT")
    assert counted.requests == [("GET", "/v1/snapshots", 503)]


async def test_requests_are_counted_by_template_not_by_path(client, counted):
    for number in range(3):
        await client.get(f"/v1/operations/op-{number}")
        await client.get(f"/nowhere/{number}")
        await client.request("PATCH", "/v1/whoami")
    assert set(counted.requests) == {
        ("GET", "/v1/operations/{ref}", 404),
        ("GET", "none", 404),
        ("other", "none", 405),
    }


async def test_probes(client, pulse):
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 200
    text = await (await client.get("/readyz?verbose")).text()
    assert text.splitlines() == ["[+] ledger ok", "[!] plugin rbd: it does not answer", "ready"]
    pulse.found = (Check("ledger", "the disk is full"),)
    answer = await client.get("/readyz")
    assert (answer.status, (await answer.json())["detail"]) == (503, "ledger: the disk is full")
    assert (await client.get("/healthz")).status == 503
    assert (await client.get("/readyz?verbose")).status == 503
    pulse.dead = "the task worker-1 ended"
    assert (await client.get("/livez")).status == 503
    assert (await (await client.get("/metrics")).text()) == "snapbridge_up 1\n"


async def test_answers_are_not_cached_and_not_sniffed(client):
    answer = await client.get("/v1/whoami")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
