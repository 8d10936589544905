"""Bad input: each is refused with its status, naming field and remedy, and leaves nothing behind."""

from __future__ import annotations

import io

import pytest
from yarl import URL

GOOD = {"name": "a", "volume": "db"}
JSON = {"Content-Type": "application/json"}


def _problem(body, status):
    assert set(body) == {
        "type", "title", "status", "detail", "code", "hint", "field", "retryable", "errors", "requestId",
    }  # fmt: skip
    assert body["status"] == status
    assert body["detail"]


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        ({"volume": "db"}, "name", "is required"),
        ({**GOOD, "name": "n" * 1000}, "name", "at most 253 characters"),
        ({**GOOD, "name": ""}, "name", "may not be empty"),
        ({**GOOD, "name": "a/b"}, "name", "slash"),
        ({**GOOD, "name": "a\x00b"}, "name", "control characters"),
        ({**GOOD, "name": " a"}, "name", "space"),
        ({**GOOD, "name": 7}, "name", "must be a valid string"),
        ({**GOOD, "name": None}, "name", "must be a valid string"),
        ({**GOOD, "naem": "x"}, "naem", "is not known here"),
        ({**GOOD, "adopt_handle": "x"}, "adopt_handle", "is not known here"),
        ({**GOOD, "deletionPolicy": "Keep"}, "deletionPolicy", "must be 'Delete' or 'Retain'"),
        ({**GOOD, "labels": {"a": 1}}, "labels.a", "must be a valid string"),
        ({**GOOD, "labels": {str(n): "" for n in range(65)}}, "labels", "at most 64 entries"),
        ({**GOOD, "secrets": {"create": "hunter2"}}, "secrets.create", "not a secret reference"),
        ({**GOOD, "secrets": {"cretae": "env:X"}}, "secrets.cretae", "is not known here"),
        ({**GOOD, "adoptHandle": "snap-1"}, "driver", "needs its driver"),
        ({"name": "a"}, "volume", "either"),
        ({"name": "a", "adoptHandle": "snap-1"}, "driver", "needs its driver"),
    ],
)
async def test_a_body_that_is_not_valid(client, desk, body, field, text):
    answer = await client.post("/v1/snapshots", json=body)
    problem = await answer.json()
    assert answer.status == 422
    assert answer.content_type == "application/problem+json"
    _problem(problem, 422)
    assert problem["field"] == field
    assert text in problem["detail"]
    assert desk.drafts == []


async def test_a_secret_value_sent_by_mistake_is_not_echoed(client):
    answer = await client.post("/v1/snapshots", json={**GOOD, "secrets": {"create": "hunter2hunter2"}})
    assert "hunter2" not in await answer.text()


async def test_the_nearest_name_is_proposed(client):
    answer = await client.post("/v1/snapshots", json={**GOOD, "volme": "x", "secrets": {"detele": "env:X"}})
    hints = {item["field"]: item["hint"] for item in (await answer.json())["errors"]}
    assert hints == {"volme": 'did you mean "volume"?', "secrets.detele": 'did you mean "delete"?'}


@pytest.mark.parametrize(
    ("data", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "BAD_JSON"),
        (b"", JSON, 400, "BAD_JSON"),
        (b'{"name": "\\ud800"}', JSON, 400, "BAD_JSON"),
        (b'{"name": "\xff"}', JSON, 400, "BAD_JSON"),
        (b"[" * 100_000, JSON, 400, "BAD_JSON"),
        (b'{"labels":' * 900 + b"1" + b"}" * 900, JSON, 422, "INVALID"),
        (b"[]", JSON, 422, "INVALID"),
        (b'{"name":"a","name":"b","volume":"db"}', JSON, 422, "INVALID"),
        (b'{"name":"a","volume":"db"}', {"Content-Type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b'{"name":"a","volume":"db"}', {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b" " * (1 << 20) + b"{}", JSON, 413, "BODY_TOO_LARGE"),
    ],
    ids=[
        "torn",
        "empty",
        "lone surrogate",
        "not UTF-8",
        "deep",
        "deep object",
        "array",
        "key twice",
        "text",
        "no type",
        "large",
    ],
)
async def test_a_body_that_is_not_ours(client, desk, data, headers, status, code):
    answer = await client.post("/v1/snapshots", data=io.BytesIO(data), headers=headers)
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (status, code)
    _problem(problem, status)
    assert desk.drafts == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/snapshots?stat=ready", "stat"),
        ("/v1/snapshots?state=redy", "state.0"),
        ("/v1/snapshots?per_page=0", "per_page"),
        ("/v1/snapshots?per_page=1001", "per_page"),
        ("/v1/snapshots?per_page=-1", "per_page"),
        ("/v1/snapshots?per_page=1_0", "per_page"),
        ("/v1/snapshots?per_page=99999999999999999999", "per_page"),
        ("/v1/snapshots?volume=a&volume=b", "volume"),
        ("/v1/snapshots?selector=app", "selector"),
        ("/v1/snapshots?next_token=elsewhere", "next_token"),
        ("/v1/snapshots?next_token=own:%C2%B2", "next_token"),
        ("/v1/snapshots?cluster=" + "c" * 1000, "cluster"),
        ("/v1/snapshots/" + "n" * 2000, "ref"),
        ("/v1/snapshots/a%00b", "ref"),
        ("/v1/operations/op-1?wait=soon", "wait"),
        ("/v1/operations?running=1", "running"),
        ("/v1/whoami?x=1", "x"),
    ],
)
async def test_a_query_that_is_not_valid(client, path, field):
    answer = await client.get(URL(path, encoded=True))
    problem = await answer.json()
    assert answer.status == 422
    _problem(problem, 422)
    assert problem["field"] == field


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "sp\u00e4t"])
async def test_an_idempotency_key_that_is_not_valid(client, desk, key):
    answer = await client.post("/v1/snapshots", json=GOOD, headers={"Idempotency-Key": key})
    assert (answer.status, (await answer.json())["field"]) == (422, "Idempotency-Key")
    assert desk.drafts == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "NO_ROUTE"),
        ("GET", "/v1", 404, "NO_ROUTE"),
        ("GET", "/v1/snapshots/", 404, "NO_ROUTE"),
        ("GET", "/v2/snapshots", 404, "NO_ROUTE"),
        ("PUT", "/v1/snapshots", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/snapshots", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/metrics", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/snapshots/nobody", 404, "NOT_FOUND"),
        ("GET", "/v1/operations/nobody", 404, "NOT_FOUND"),
        ("DELETE", "/v1/snapshots/nobody", 404, "NOT_FOUND"),
    ],
)
async def test_what_is_not_there(client, method, path, status, code):
    answer = await client.request(method, path)
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (status, code)
    _problem(problem, status)
    if status == 405:
        assert answer.headers["Allow"]
