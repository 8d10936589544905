"""/v1/snapshots: what is promised of each verb."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from bridge.model.snapshot import CutSnapshot
from bridge.model.view import ForeignSnapshot
from tests.contract.api.conftest import client_of
from tests.support.desk import DRIVER, MemoryDesk, refused

UID = "00000001-5eed-4000-8000-000000000000"


async def _ended(client, operation):
    while operation["state"] == "running":
        query = {"wait": "5s", "index": operation["version"]}
        operation = await (await client.get(f"/v1/operations/{operation['id']}", params=query)).json()
    return operation


async def test_a_snapshot_is_booked_followed_and_ready(client, desk):
    answer = await client.post("/v1/snapshots", json={"name": "first", "volume": "db", "why": "before the upgrade"})
    assert answer.status == 202
    body = await answer.json()
    assert body["kind"] == "SnapshotAccepted"
    assert body["snapshot"]["state"] == "pending"
    assert body["snapshot"]["namespace"] == "default"
    assert body["snapshot"]["sizeBytes"] is None
    assert body["snapshot"]["cutAt"] is None
    assert answer.headers["Location"] == f"/v1/operations/{body['operation']['id']}"
    operation = await _ended(client, body["operation"])
    assert operation["state"] == "done"
    assert [step["name"] for step in operation["steps"]] == ["cutting", "processing", "ready"]
    found = await (await client.get("/v1/snapshots/" + body["snapshot"]["uid"])).json()
    assert found["ready"] is True
    assert found["cutAt"].startswith("2025-11-")
    assert found["why"] == "before the upgrade"
    assert desk.drafts[0].asked_by == "local"


@pytest.mark.parametrize(
    "ref",
    [UID, UID[:8], "east/default/first", "east%2Fdefault%2Ffirst"],
    ids=["uid", "start of uid", "name with slashes", "name percent-encoded"],
)
async def test_a_snapshot_is_found_by_each_kind_of_reference(client, desk, ref):
    desk.add("first")
    answer = await client.get(URL(f"/v1/snapshots/{ref}", encoded=True))
    assert (await answer.json())["name"] == "first"


async def test_a_name_that_holds_no_namespace_is_reached_too(client, desk):
    desk.add("bare", namespace="")
    assert (await client.get("/v1/snapshots/east//bare")).status == 200


async def test_the_same_key_with_the_same_body_gives_the_first_answer_again(client, desk):
    headers = {"Idempotency-Key": "k-1"}
    first = await client.post("/v1/snapshots", json={"name": "a", "volume": "db"}, headers=headers)
    again = await client.post("/v1/snapshots", json={"name": "a", "volume": "db"}, headers=headers)
    other = await client.post("/v1/snapshots", json={"name": "b", "volume": "db"}, headers=headers)
    assert (first.status, again.status, other.status) == (202, 202, 409)
    assert (await first.json())["operation"]["id"] == (await again.json())["operation"]["id"]
    assert len(desk.drafts) == 1


async def test_pages_hold_everything_once_newest_first(client, desk):
    for number in range(7):
        desk.add(f"s{number}")
    names, token = [], ""
    while True:
        page = await (await client.get("/v1/snapshots", params={"per_page": "3", "next_token": token})).json()
        names += [item["name"] for item in page["items"]]
        token = page["nextToken"]
        if not token:
            break
    assert names == [f"s{number}" for number in reversed(range(7))]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, {"a", "b", "c"}),
        ({"volume": "logs"}, {"b"}),
        ({"namespace": "web"}, {"c"}),
        ({"state": "pending"}, {"c"}),
        ([("state", "pending"), ("state", "ready")], {"a", "b", "c"}),
        ({"prefix": "00000002"}, {"b"}),
        ({"cluster": "west"}, set()),
        ({"selector": "app=shop"}, {"d"}),
    ],
)
async def test_filters(client, desk, query, names):
    desk.add("a")
    desk.add("b", volume="logs")
    desk.add("c", namespace="web", ready=False)
    if "d" in names:
        await client.post("/v1/snapshots", json={"name": "d", "volume": "db", "labels": {"app": "shop"}})
    found = await (await client.get("/v1/snapshots", params=query)).json()
    assert {item["name"] for item in found["items"]} == names


async def test_delete_answers_an_operation_and_the_snapshot_goes(client, desk):
    view = desk.add("old")
    answer = await client.delete(f"/v1/snapshots/{view.key.uid}")
    assert answer.status == 202
    assert answer.headers["Location"].startswith("/v1/operations/")
    assert (await _ended(client, await answer.json()))["state"] == "done"
    assert desk.view("old") is None


async def test_a_start_of_a_uid_deletes_nothing(client, desk):
    view = desk.add("old")
    answer = await client.delete(f"/v1/snapshots/{view.key.uid[:8]}")
    assert answer.status == 404
    assert desk.view("old") is not None


async def test_restore_makes_a_volume(client, desk):
    view = desk.add("good")
    answer = await client.post(
        f"/v1/snapshots/{view.key.uid}/restore", json={"name": "again", "capacityBytes": 3 << 30}
    )
    assert answer.status == 202
    location = answer.headers["Location"]
    assert location == f"/v1/operations/{(await answer.json())['id']}"
    operation = await _ended(client, await answer.json())
    assert operation["result"]["volume"] == "again"
    volumes = await (await client.get("/v1/volumes")).json()
    assert "again" in {volume["name"] for volume in volumes["items"]}


async def test_revert_answers_a_plan_or_an_operation_and_is_acknowledged_once(client, desk):
    view = desk.add("good")
    path = f"/v1/snapshots/{view.key.uid}/revert"
    plan = await (await client.post(path, json={"dryRun": True})).json()
    assert (plan["operation"], plan["plan"]["stops"], plan["plan"]["downtimeSeconds"]) == (
        None,
        "job web: group g (1)",
        15.0,
    )
    answer = await client.post(path, json={})
    assert answer.status == 202
    body = await answer.json()
    assert (body["plan"], answer.headers["Location"]) == (None, f"/v1/operations/{body['operation']['id']}")
    ended = await _ended(client, body["operation"])
    assert ended["result"]["kept"] == "db-before-5eed"
    acknowledge = f"/v1/operations/{ended['id']}/acknowledge"
    assert (await client.post(acknowledge, json={"delete": True})).status == 202
    assert (await client.post(acknowledge, json={"delete": True})).status == 409
    unready = desk.add("unready", ready=False)
    assert (await client.post(f"/v1/snapshots/{unready.key.uid}/revert", json={})).status == 409


async def test_a_restore_that_is_too_small_names_the_field_as_it_was_sent(client, desk):
    view = desk.add("good")
    answer = await client.post(f"/v1/snapshots/{view.key.uid}/restore", json={"name": "again", "capacityBytes": 1})
    assert answer.status == 422
    assert (await answer.json())["field"] == "capacityBytes"


async def test_one_cluster_may_be_left_out_and_two_may_not():
    async with client_of(MemoryDesk(clusters=("east", "west"))) as client:
        answer = await client.post("/v1/snapshots", json={"name": "a", "volume": "db"})
        body = await answer.json()
        assert (answer.status, body["field"]) == (422, "cluster")
        assert "east, west" in body["hint"]


async def test_a_waiting_query_returns_when_its_time_is_up():
    desk = MemoryDesk(by_hand=True)
    async with client_of(desk) as client:
        answer = await client.post("/v1/snapshots", json={"name": "a", "volume": "db"})
        operation = (await answer.json())["operation"]
        query = {"wait": "50ms", "index": operation["version"]}
        unchanged = await (await client.get(answer.headers["Location"], params=query)).json()
        assert unchanged["version"] == operation["version"]
        waiting = asyncio.create_task(client.get(answer.headers["Location"], params={**query, "wait": "30s"}))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        desk.advance()
        changed = await (await waiting).json()
        assert changed["steps"][-1]["name"] == "cutting"


async def test_an_operation_that_has_ended_is_not_waited_for(client, desk):
    answer = await client.post("/v1/snapshots", json={"name": "a", "volume": "db"})
    location = answer.headers["Location"]
    operation = await (await client.get(location)).json()
    while operation["state"] == "running":
        operation = await (await client.get(location)).json()
    query = {"wait": "60s", "index": operation["version"]}
    async with asyncio.timeout(30):
        again = await client.get(location, params=query)
    assert again.status == 200


async def test_a_caller_may_wait_with_one_request(client, desk):
    body, headers = {"name": "first", "volume": "db"}, {"Idempotency-Key": "k-1"}
    answer = await client.post("/v1/snapshots?wait=20s", json=body, headers=headers)
    assert answer.status == 202
    document = await answer.json()
    assert (document["snapshot"]["ready"], document["operation"]["state"]) == (True, "done")


async def test_waiting_tells_a_failure_by_its_status(client, desk):
    desk.failure = refused("RESOURCE_EXHAUSTED", "the pool is full")
    body, headers = {"name": "first", "volume": "db"}, {"Idempotency-Key": "k-1"}
    answer = await client.post("/v1/snapshots?wait=20s", json=body, headers=headers)
    assert answer.status == 424
    problem = await answer.json()
    assert (problem["detail"], problem["code"]) == ("the pool is full", "RESOURCE_EXHAUSTED")
    assert problem["retryable"] is False


async def test_a_wait_that_is_over_may_be_asked_again(client, desk):
    desk.by_hand = True
    body, headers = {"name": "first", "volume": "db"}, {"Idempotency-Key": "k-1"}
    answer = await client.post("/v1/snapshots?wait=50ms", json=body, headers=headers)
    assert (answer.status, (await answer.json())["code"]) == (504, "NOT_YET")
    assert answer.headers["Retry-After"] == "2"
    for _ in range(3):
        desk.advance()
    answer = await client.post("/v1/snapshots?wait=50ms", json=body, headers=headers)
    assert answer.status == 202
    assert (await answer.json())["snapshot"]["ready"] is True
    assert len(desk.drafts) == 1


async def test_a_pinned_snapshot_is_shown_so_and_its_delete_is_a_conflict(client, desk):
    desk.add("kept")
    answer = await client.post("/v1/snapshots/east/default/kept/pin", json={"why": "the audit"})
    assert answer.status == 200
    (pin,) = (await answer.json())["pins"]
    assert (pin["pinnedBy"], pin["why"], pin["operation"]) == ("local", "the audit", "")
    refused = await client.delete("/v1/snapshots/east/default/kept")
    assert refused.status == 409
    problem = await refused.json()
    assert problem["code"] == "PINNED"
    assert "pinned by local: the audit" in problem["detail"]
    answer = await client.delete("/v1/snapshots/east/default/kept/pin")
    assert (await answer.json())["pins"] == []
    assert (await client.delete("/v1/snapshots/east/default/kept")).status == 202


async def test_a_snapshot_named_like_a_verb_is_still_itself(client, desk):
    desk.add("pin")
    assert (await client.post("/v1/snapshots/east/default/pin/pin", json={})).status == 200
    assert (await client.delete("/v1/snapshots/east/default/pin")).status == 409


async def test_the_deletion_policy_is_changed(client, desk):
    desk.add("one")
    answer = await client.post("/v1/snapshots/east/default/one/policy", json={"deletionPolicy": "Retain"})
    assert (await answer.json())["deletionPolicy"] == "Retain"
    refused = await client.post("/v1/snapshots/east/default/one/policy", json={"deletionPolicy": "keep"})
    assert refused.status == 422
    assert (await refused.json())["field"] == "deletionPolicy"


async def test_snapshots_are_filtered_by_who_had_the_volume(client, desk):
    desk.add("other")
    body = {"name": "mine", "volume": "db"}
    await client.post("/v1/snapshots", json=body)
    desk.show_users("mine", {"job": ("web",)})
    found = await (await client.get("/v1/snapshots", params={"used_by": "job=web"})).json()
    assert [item["name"] for item in found["items"]] == ["mine"]
    assert found["items"][0]["users"] == {"job": ["web"]}
    assert (await client.get("/v1/snapshots", params={"used_by": "job"})).status == 422


async def test_the_token_of_a_plugin_may_be_any_text(client, desk):
    desk.foreign = [ForeignSnapshot(DRIVER, CutSnapshot(f"s{number}", "v", True)) for number in range(3)]
    desk.foreign_token = "seite zwei é "
    path = f"/v1/plugins/{DRIVER}/snapshots"
    found = await (await client.get(path, params={"per_page": "2"})).json()
    assert ([item["handle"] for item in found["items"]], found["listable"]) == (["s0", "s1"], True)
    assert found["nextToken"].isascii()
    found = await (await client.get(path, params={"per_page": "2", "next_token": found["nextToken"]})).json()
    assert ([item["handle"] for item in found["items"]], found["nextToken"]) == (["s2"], "")
    for token in ("!", "_w"):
        refused = await client.get(path, params={"next_token": token})
        assert refused.status == 422
        assert (await refused.json())["field"] == "next_token"
