"""What the agent says of itself: /v1/agent, regions, status, namespaces, nodes, search, keys.

It must not change anything but namespaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from tests.support.nomad import acl, blocking
from tests.support.nomad.answers import Refusal, answer, empty, invalid_method, read_headers, read_json, write_headers
from tests.support.nomad.state import Row

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad


def node_row(agent: FakeNomad) -> Row:
    def driver(name: str, *, found: bool = True) -> Row:
        return {
            "Attributes": {f"driver.{name}": "true"} if found else {}, "Detected": found,
            "HealthDescription": "Healthy" if found else "", "Healthy": found, "UpdateTime": agent.started_at,
        }  # fmt: skip

    return {
        "Address": "127.0.0.1", "CreateIndex": 8, "Datacenter": "dc1", "Drain": False,
        "Drivers": {"raw_exec": driver("raw_exec"), "exec": driver("exec"), "docker": driver("docker", found=False)},
        "HostVolumes": {}, "ID": agent.state.node_id, "LastDrain": None,
        "ModifyIndex": agent.state.table_index(("nodes",)), "Name": agent.state.node_name, "NodeClass": "",
        "NodePool": "default", "SchedulingEligibility": "eligible", "Status": "ready", "StatusDescription": "",
        "Version": agent.settings.version,
    }  # fmt: skip


async def agent(fake: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/v1/agent/self and /v1/agent/health"""
    if rest == "health":
        good = {"message": "ok", "ok": True}
        return answer({"client": good, "server": good})
    if rest != "self":
        raise Refusal(404, "resource not found")  # not recorded; the fake has no other agent endpoint
    fake.acl.require(request, acl.agent_read)
    return answer({"config": _config(fake), "member": _member(fake), "stats": _stats(fake)})


def _config(fake: FakeNomad) -> Row:
    number, _, prerelease = fake.settings.version.partition("-")
    ttl = 30_000_000_000
    return {
        "ACL": {"Enabled": fake.acl.enabled, "PolicyTTL": ttl, "ReplicationToken": "", "RoleTTL": ttl,
                "TokenMaxExpirationTTL": 0, "TokenMinExpirationTTL": 0, "TokenTTL": ttl},
        "AdvertiseAddrs": {"HTTP": fake.address, "RPC": fake.rpc_address, "Serf": fake.rpc_address},
        "DataDir": str(fake.data_dir), "Datacenter": "dc1", "NodeName": "", "Region": fake.state.region,
        "Version": {"BuildDate": None, "Revision": "aa026cc", "Version": number, "VersionMetadata": "",
                    "VersionPrerelease": prerelease},
    }  # fmt: skip


def _member(fake: FakeNomad) -> Row:
    host, _, port = fake.rpc_address.partition(":")
    tags = {
        "id": fake.server_id, "rpc_addr": host, "bootstrap": "1", "expect": "1", "vsn": "1", "raft_vsn": "3",
        "role": "nomad", "dc": "dc1", "build": fake.settings.version, "revision": "aa026cc", "port": port,
        "region": fake.state.region,
    }  # fmt: skip
    return {
        "Addr": host, "DelegateCur": 4, "DelegateMax": 5, "DelegateMin": 2,
        "Name": f"{fake.state.node_name}.{fake.state.region}", "Port": int(port), "ProtocolCur": 2, "ProtocolMax": 5,
        "ProtocolMin": 1, "Status": "alive", "Tags": tags,
    }  # fmt: skip


def _stats(fake: FakeNomad) -> Row:
    return {
        "client": {"node_id": fake.state.node_id, "known_servers": fake.rpc_address,
                   "num_allocations": str(len(fake.runner.live)), "last_heartbeat": "10s", "heartbeat_ttl": "18s"},
        "nomad": {"server": "true", "leader": "true", "leader_addr": fake.rpc_address, "bootstrap": "true",
                  "known_regions": "1"},
    }  # fmt: skip


async def regions(fake: FakeNomad, request: web.Request) -> web.StreamResponse:
    return answer([fake.state.region])


async def status(fake: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/v1/status/leader and /v1/status/peers"""
    return answer([fake.rpc_address] if rest == "peers" else fake.rpc_address)


async def namespaces(fake: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/namespaces; a caller without a token sees none"""
    await blocking.block(request, fake.state, blocking.Watch(("namespaces",)))
    caller: acl.Caller = acl.caller(request)
    rows = [
        row for name, row in sorted(fake.state.namespaces.items()) if caller.management or caller.capabilities(name)
    ]
    return answer(rows, read_headers(fake.state.table_index(("namespaces",))))


async def namespace(fake: FakeNomad, request: web.Request, name: str) -> web.StreamResponse:
    """GET, PUT, DELETE /v1/namespace/:name"""
    if request.method in ("PUT", "POST"):
        # not recorded; nomad.md 2.1 knows namespaces, the answer is that of other empty writes
        fake.acl.require(request, acl.management)
        body = await read_json(request)
        fake.state.put_namespace(name or str(body["Name"]), str(body.get("Description", "")))
        return empty(write_headers(fake.state.index))
    if request.method == "DELETE":
        fake.acl.require(request, acl.management)  # not recorded, as PUT
        fake.state.namespaces.pop(name, None)
        return empty(write_headers(fake.state.commit("namespaces")))
    if request.method != "GET":
        raise invalid_method()
    row = fake.state.namespaces.get(name)
    headers = read_headers(fake.state.table_index(("namespaces",)))
    if row is None:
        raise Refusal(404, "Namespace not found", headers)
    return answer(row, headers)


async def nodes(fake: FakeNomad, request: web.Request) -> web.StreamResponse:
    """GET /v1/nodes"""
    if request.method != "GET":
        raise invalid_method()
    fake.acl.require(request, acl.node_read)
    await blocking.block(request, fake.state, blocking.Watch(("nodes",)))
    return answer([node_row(fake)], read_headers(fake.state.table_index(("nodes",))))


async def node(fake: FakeNomad, request: web.Request, node_id: str) -> web.StreamResponse:
    """GET /v1/node/:id"""
    # not recorded; the fields of the list row and those that our registrar reads
    fake.acl.require(request, acl.node_read)
    if node_id != fake.state.node_id:
        raise Refusal(404, "node not found")
    row = {**node_row(fake), "Attributes": {"nomad.version": fake.settings.version}, "HTTPAddr": fake.address}
    return answer(row, read_headers(fake.state.table_index(("nodes",))))


async def search(fake: FakeNomad, request: web.Request) -> web.StreamResponse:
    """POST /v1/search, for volumes, plugins and jobs"""
    body = await read_json(request)
    wanted, prefix = body.get("Context", ""), body.get("Prefix", "")
    names = {"volumes": [v for _, v in fake.state.volumes], "plugins": list(fake.state.plugins),
             "jobs": [j for _, j in fake.state.jobs]}  # fmt: skip
    matches = {wanted: sorted(n for n in names.get(wanted, []) if n.startswith(prefix))}
    body = {"Index": 0, "KnownLeader": True, "LastContact": 0, "Matches": matches, "NextToken": "",
            "Truncations": {wanted: False}}  # fmt: skip
    return answer(body, read_headers(0))


async def well_known(fake: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/.well-known/jwks.json and openid-configuration"""
    if rest == "jwks.json":
        headers = {"Cache-Control": "max-age=86400", **read_headers(fake.state.table_index(("root_keys",)))}
        return answer(fake.identity.jwks(), headers)
    raise Refusal(404, "OIDC Discovery endpoint disabled")
