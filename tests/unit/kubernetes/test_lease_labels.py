"""A lease keeps what others have put on it, and gets the labels that the flag asks for."""

from __future__ import annotations

from typing import Any, cast

from adapters.kubernetes import election
from adapters.kubernetes.client import Client
from adapters.kubernetes.decide.election import Terms
from adapters.kubernetes.problem import ApiError
from tests.support.memory import VirtualClock

Object = dict[str, Any]


class Leases:
    """One lease on a server that checks versions."""

    def __init__(self, lease: Object | None = None) -> None:
        self.lease = lease

    async def get(self, *_where: object) -> Object:
        if self.lease is None:
            raise ApiError(404, "NotFound", "no such lease")
        return self.lease

    async def create(self, _resource: object, _namespace: str, body: Object) -> Object:
        assert self.lease is None
        return self._keep(body, "1")

    async def put(self, _resource: object, body: Object) -> Object:
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        assert body["metadata"]["resourceVersion"] == version
        return self._keep(body, str(int(version) + 1))

    def _keep(self, body: Object, version: str) -> Object:
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        return self.lease


def candidate(server: Leases, **labels: str) -> election.Candidate:
    return election.Candidate(
        cast(Client, server), VirtualClock(), namespace="n", name="lease", me="me", terms=Terms(labels=labels)
    )


async def test_a_new_lease_gets_the_labels() -> None:
    server = Leases()
    one = candidate(server, team="storage")
    await one.step(True)
    assert one.holding
    assert server.lease is not None
    assert server.lease["metadata"]["labels"] == {"team": "storage"}


async def test_what_others_have_put_on_a_lease_stays_through_taking_renewing_and_releasing() -> None:
    metadata = {
        "name": "lease", "namespace": "n", "resourceVersion": "7", "uid": "u",
        "labels": {"app": "csi", "team": "other"}, "annotations": {"note": "mine"},
    }  # fmt: skip
    server = Leases({"metadata": metadata, "spec": {"holderIdentity": ""}})
    one = candidate(server, team="storage")
    await one.step(True)
    await one.step(True)
    assert one.holding
    await one.release()
    assert server.lease is not None
    kept = server.lease["metadata"]
    assert server.lease["spec"]["holderIdentity"] == ""
    assert (kept["labels"], kept["annotations"]) == ({"app": "csi", "team": "storage"}, {"note": "mine"})
    assert kept["resourceVersion"] == "10"
