"""Schemathesis over the OpenAPI page against the whole service: a process of its own, SQLite, and a real driver.

`test_openapi.py` does the same, with more examples, over a desk in memory. Here the calls find real volumes and
snapshots, whatever is booked is cut, and everything must be gone in the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bridge.api.application import endpoints
from bridge.api.openapi import page
from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import claims, localdisk, serve

pytestmark = pytest.mark.slow

EXAMPLES, CREATES = 15, 40
PAGE = page(endpoints(), "0")
SCHEMA: Any = schemathesis.openapi.from_dict(PAGE)
OPERATIONS: dict[str, Any] = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
SMALL = 1 << 16


@dataclasses.dataclass
class Place:
    """The service, its driver, and what a good call may name."""

    service: serve.Serve
    driver: localdisk.LocalDisk
    uids: list[str] = dataclasses.field(default_factory=list)
    booked: int = 0

    def snapshots(self) -> list[str]:
        """What the backend holds."""
        answer = self.driver.controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=60)
        return [entry.snapshot.snapshot_id for entry in answer.entries]

    def volumes(self) -> list[str]:
        answer = self.driver.controller.ListVolumes(pb.ListVolumesRequest(), timeout=60)
        return [entry.volume.volume_id for entry in answer.entries]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with localdisk.start_localdisk(mode="directory") as driver:
        handle = driver.volume("data", SMALL).volume_id
        volumes = [{"name": "data", "driver": localdisk.NAME, "handle": handle, "capacity": "64KiB"}]
        made = serve.service(
            clusters=[{"name": "here", "kind": "standalone", "volumes": volumes}],
            plugins=[{"name": "localdisk", "socket": str(driver.socket)}],
        )
        with made as running:
            claims.until("the driver is healthy", lambda: running.get("/v1/plugins")["items"][0]["healthy"])
            found = Place(running, driver)
            for name in ("there-0", "there-1"):
                running.cli("snapshot", "create", "data", name, "--wait")
                found.uids.append(running.get(f"/v1/snapshots/here/default/{name}")["uid"])
            yield found


def _cases() -> Iterator[tuple[str, Any]]:
    for label, operation in OPERATIONS.items():
        yield label, POSITIVE
        found = PAGE["paths"][operation.path][operation.method]
        if found["parameters"] or "requestBody" in found:
            yield label, NEGATIVE


def _excused(response: Any) -> list[Any]:
    """Checks that a good refusal cannot pass: no schema tells what exists, what fits together, and what is up."""
    if response.status_code == 503:
        assert response.json()["retryable"]
        assert response.headers["retry-after"]
        return [not_a_server_error, positive_data_acceptance]
    if response.status_code == 504:  # a create that is waited for and takes longer, as on a busy machine
        assert response.json()["code"] == "NOT_YET"
        assert response.headers["retry-after"]
        return [not_a_server_error, positive_data_acceptance]
    fields = (
        "next_token",
        "snapshot",
        "group",
        "driver",
        "cluster",
        "volume",
        "capacityBytes",
        "name",
        "secret",
        "secrets",
    )
    unknown = response.status_code in (404, 409)
    refused = response.status_code == 424 and response.json()["code"] == "INVALID_ARGUMENT"  # by the driver, in time
    if response.status_code == 422 and response.json()["code"] == "UNSUPPORTED":  # a standalone host stops nobody
        return [positive_data_acceptance]
    unfit = response.status_code == 422 and response.json()["field"].split(".")[0] in fields
    return [positive_data_acceptance] if unknown or unfit or refused else []


def _bookable(case: schemathesis.Case[Any], number: int) -> None:
    """Make it a create that nothing forbids: what is generated depends on which modules are loaded, and may all be
    refused."""
    kept = {key: case.body[key] for key in ("deletionPolicy", "labels", "pin", "why") if key in case.body}
    case.body = {**kept, "cluster": "here", "namespace": "default", "volume": "data", "name": f"asked-{number}"}
    if case.headers:
        case.headers.pop("Idempotency-Key", None)


def _real(case: schemathesis.Case[Any], place: Place, pick: int) -> None:
    """Let some calls name what exists: else a check of the names is all that is met."""
    if pick % 3 == 0:
        return
    if isinstance(case.body, dict) and case.path == "/v1/snapshots":
        kept = {key: value for key, value in case.body.items() if key not in ("adoptHandle", "secrets", "driver")}
        case.body = {**kept, "cluster": "here", "namespace": "default", "volume": "data"}
    if "ref" in (case.path_parameters or {}) and case.method != "DELETE":
        case.path_parameters["ref"] = place.uids[pick % len(place.uids)]


@pytest.mark.parametrize(("label", "mode"), list(_cases()), ids=str)
def test_every_answer_fits_the_page(label: str, mode: Any, place: Place) -> None:
    seen: list[int] = []

    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode), pick=st.integers(0, 5))
    @settings(
        max_examples=CREATES if label == "POST /v1/snapshots" else EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: schemathesis.Case[Any], pick: int) -> None:
        if mode is POSITIVE:
            _real(case, place, pick)
            if label == "POST /v1/snapshots" and len(seen) % 2 == 0:
                _bookable(case, len(seen))
        if "wait" in (case.query or {}):
            case.query["wait"] = "50ms" if mode is POSITIVE else case.query["wait"]
        response = case.call(base_url=place.service.url, timeout=60)
        case.validate_response(response, excluded_checks=_excused(response))
        seen.append(response.status_code)
        place.booked += (case.method, case.path) == ("POST", "/v1/snapshots") and response.status_code in (202, 504)

    call()
    assert seen, "nothing was asked"
    assert not [status for status in seen if status >= 500 and status not in (503, 504)]
    if mode is NEGATIVE:
        assert {400, 404, 422} & set(seen)


def test_what_was_made_can_be_deleted_and_nothing_is_left(place: Place) -> None:
    """Last in this file: every snapshot that the calls have booked goes, and the backend is empty."""
    assert place.booked >= 10, "hardly a call got through: the run has shown little"
    for one in place.service.get("/v1/operations?running=true&per_page=1000")["items"]:
        if one["verb"] in ("restore", "clone"):  # a place or a size that the driver will never have
            place.service.request("POST", f"/v1/operations/{one['id']}/abandon")
    claims.until("restores are over", lambda: not _running(place, "restore"), 60.0)
    claims.until("clones are over", lambda: not _running(place, "clone"), 60.0)
    for one in _every(place.service):
        claims.until("no longer in its create", lambda uid=one["uid"]: _settled(place.service, uid))  # type: ignore[misc]
    left = {one["uid"] for one in _every(place.service)}
    for uid in left:
        place.service.request("DELETE", f"/v1/snapshots/{uid}/pin")
        status, answer = place.service.request("DELETE", f"/v1/snapshots/{uid}")
        assert status == 202, answer
    claims.until("all deleted", lambda: all(one["state"] == "retained" for one in _every(place.service)), 60.0)
    kept = {one["handle"] for one in _every(place.service)}
    assert set(place.snapshots()) == kept, "what is on the backend is not what is on record as retained"
    for handle in kept:
        place.driver.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=handle), timeout=60)
    for handle in place.volumes():
        place.driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=handle), timeout=60)
    assert place.driver.left_over() == []
    log = place.service.process.log.read_text()
    assert "Traceback" not in log
    assert "the turn crashed" not in log
    # An operation hears of its snapshot's end a moment after the snapshot itself shows it.
    claims.until("no operation is open", lambda: not place.service.get("/v1/operations?running=true")["items"])


def _every(service: serve.Serve) -> Sequence[Any]:
    items, token = [], ""
    while True:
        found = service.get(f"/v1/snapshots?per_page=50&next_token={token}")
        items += found["items"]
        token = found["nextToken"]
        if not token:
            return items


def _settled(service: serve.Serve, uid: str) -> bool:
    status, found = service.request("GET", f"/v1/snapshots/{uid}")
    return status == 404 or found["state"] in ("ready", "failing", "retained")


def _running(place: Place, verb: str) -> bool:
    return any(one["verb"] == verb for one in place.service.get("/v1/operations?running=true")["items"])


def test_the_ledger_holds_nothing_open(place: Place) -> None:
    """After the deletes: what is left on record is retained, with a handle, and no create is open."""
    file = place.service.folder / "data" / "ledger.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
        records = [json.loads(body) for (body,) in connection.execute("SELECT body FROM records")]
    assert all(record["handle"] and not record["note_open"] for record in records)
