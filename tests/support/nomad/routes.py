"""Which path belongs to which endpoint module.

It must not look into a request but for its path; an id may hold slashes and brackets, so no router is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from aiohttp import web

from tests.support.nomad import acl, agent_info, allocations, exec, jobs, plugins, snapshots, variables, volumes

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

Exact = Callable[["FakeNomad", web.Request], Awaitable[web.StreamResponse]]
Below = Callable[["FakeNomad", web.Request, str], Awaitable[web.StreamResponse]]


async def _stream(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    # The upgrade to a stream comes before the check (nomad-verified.md A.1).
    return await agent.events.serve(request, allowed=agent.stream_allowed(request))


EXACT: dict[str, Exact] = {
    "/v1/volumes": volumes.list_volumes,
    "/v1/volumes/external": volumes.external,
    "/v1/volumes/snapshot": snapshots.serve,
    "/v1/plugins": plugins.list_plugins,
    "/v1/jobs": jobs.collection,
    "/v1/jobs/parse": jobs.parse,
    "/v1/allocations": allocations.list_allocations,
    "/v1/vars": variables.list_variables,
    "/v1/event/stream": _stream,
    "/v1/regions": agent_info.regions,
    "/v1/namespaces": agent_info.namespaces,
    "/v1/namespace": lambda agent, request: agent_info.namespace(agent, request, ""),
    "/v1/nodes": agent_info.nodes,
    "/v1/search": agent_info.search,
}
BELOW: tuple[tuple[str, Below], ...] = (
    ("/v1/volume/", volumes.one_volume),
    ("/v1/plugin/", plugins.one_plugin),
    ("/v1/job/", jobs.one),
    ("/v1/allocation/", allocations.one_allocation),
    ("/v1/client/allocation/", exec.alloc_exec),
    ("/v1/var/", variables.one),
    ("/v1/agent/", agent_info.agent),
    ("/v1/status/", agent_info.status),
    ("/v1/namespace/", agent_info.namespace),
    ("/v1/node/", agent_info.node),
    ("/v1/acl/", acl.serve),
    ("/.well-known/", agent_info.well_known),
)


def path_of(request: web.Request) -> str:
    """The path as Go sees it: percent-decoded, so an encoded slash is a slash."""
    return unquote(request.rel_url.raw_path)


def late_check(path: str) -> bool:
    """Whether the token is looked at after the answer has begun: streams and websockets."""
    return path == "/v1/event/stream" or path.endswith(("/exec", "/action"))


async def dispatch(agent: FakeNomad, request: web.Request) -> web.StreamResponse | None:
    """The endpoint's answer; None for a path that Nomad does not know."""
    path = path_of(request)
    exact = EXACT.get(path)
    if exact is not None:
        return await exact(agent, request)
    if path.startswith("/v1/job/") and path.endswith("/action"):
        return await exec.action(agent, request, path.removeprefix("/v1/job/").removesuffix("/action"))
    for prefix, below in BELOW:
        if path.startswith(prefix):
            return await below(agent, request, path.removeprefix(prefix))
    return None
