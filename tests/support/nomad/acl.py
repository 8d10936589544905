"""ACL tokens, policies and the checks of the endpoints (nomad.md 2.2, 2.5; nomad-verified.md G).

It must not look anything up but tokens and policies: the check comes before the look-up of what is asked for.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.nomad import hcl
from tests.support.nomad.answers import Refusal, answer, empty, invalid_method, read_headers, read_json, write_headers
from tests.support.nomad.state import Row, new_id, stamp

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_READ = {"list-jobs", "parse-job", "read-job", "csi-list-volume", "csi-read-volume", "list-scaling-policies",
         "read-scaling-policy", "read-job-scaling", "host-volume-read"}  # fmt: skip
_WRITE = _READ | {
    "scale-job", "submit-job", "dispatch-job", "read-logs", "read-fs", "alloc-exec", "alloc-lifecycle",
    "csi-write-volume", "csi-mount-volume", "submit-recommendation", "host-volume-create", "host-volume-register",
    "host-volume-write", "host-volume-delete",
}  # fmt: skip
SHORTHANDS = {"read": _READ, "write": _WRITE, "deny": {"deny"}, "scale": {"scale-job", "list-jobs"}}


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy; `job` is the workload that it is attached to, if any."""

    name: str
    rules: str
    namespaces: dict[str, set[str]]
    variables: dict[str, dict[str, set[str]]]  # namespace -> path glob -> capabilities
    coarse: dict[str, str]  # plugin, node, agent, operator -> policy
    job: Row | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what the token allows. `management` allows all."""

    management: bool = False
    policies: tuple[Policy, ...] = ()
    token: Row | None = None

    def capabilities(self, namespace: str) -> set[str]:
        found: set[str] = set()
        for policy in self.policies:
            exact = policy.namespaces.get(namespace)
            globs = [caps for glob, caps in policy.namespaces.items() if fnmatch.fnmatchcase(namespace, glob)]
            found |= exact if exact is not None else set().union(*globs)
        return set() if "deny" in found else found

    def coarse(self, kind: str) -> set[str]:
        return {policy.coarse[kind] for policy in self.policies if kind in policy.coarse}

    def may_variable(self, namespace: str, path: str, capability: str) -> bool:
        """Of all rules that fit, only the closest one counts (acl/acl.go, AllowVariableOperation)."""
        found: dict[tuple[str, str], set[str]] = {}
        for policy in self.policies:
            for space, rules in policy.variables.items():
                for glob, capabilities in rules.items():
                    if fnmatch.fnmatchcase(namespace, space) and fnmatch.fnmatchcase(path, glob):
                        found.setdefault((space, glob), set()).update(capabilities)
        closest = max(found, key=lambda rule: (len(rule[0].strip("*")), len(rule[1].strip("*"))), default=None)
        return self.management or (closest is not None and capability in found[closest])


Check = Callable[[Caller, str], bool]
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
EVERYONE = Caller(management=True)
ANONYMOUS = Caller()


def namespace(*any_of: str) -> Check:
    """The caller has one of these capabilities in the request's namespace."""
    return lambda caller, name: caller.management or bool(caller.capabilities(name) & set(any_of))


def plugin_read(caller: Caller, _: str) -> bool:
    """`plugin:write` does not do (nomad.md 2.2): the code tests for equality with `read`."""
    return caller.management or "read" in caller.coarse("plugin")


def plugin_list(caller: Caller, _: str) -> bool:
    return caller.management or bool(caller.coarse("plugin") & {"read", "list"})


def both(*checks: Check) -> Check:
    return lambda caller, name: all(check(caller, name) for check in checks)


def agent_read(caller: Caller, _: str) -> bool:
    return caller.management or bool(caller.coarse("agent") & {"read", "write"})


def node_read(caller: Caller, _: str) -> bool:
    return caller.management or bool(caller.coarse("node") & {"read", "write"})


def management(caller: Caller, _: str) -> bool:
    return caller.management


volume_list = namespace("csi-list-volume", "csi-read-volume", "csi-mount-volume", "list-jobs")
volume_read = namespace("csi-read-volume", "csi-mount-volume", "read-job")
volume_write = namespace("csi-write-volume")
volume_write_with_plugin = both(volume_write, plugin_read)


def parse_policy(name: str, rules: str, job: Row | None = None) -> Policy:
    namespaces: dict[str, set[str]] = {}
    variables: dict[str, dict[str, set[str]]] = {}
    coarse: dict[str, str] = {}
    for block in hcl.parse(rules).blocks:
        if block.type == "namespace":
            label = block.labels[0] if block.labels else "default"
            namespaces[label] = set(SHORTHANDS.get(str(block.attributes.get("policy", "")), set()))
            namespaces[label] |= set(block.attributes.get("capabilities", []))
            variables[label] = _variable_rules(block)
        else:
            coarse[block.type] = str(block.attributes.get("policy", ""))
    return Policy(name, rules, namespaces, variables, coarse, job)


def _variable_rules(block: hcl.Block) -> dict[str, set[str]]:
    rules: dict[str, set[str]] = {}
    for outer in block.of_type("variables"):
        for path in outer.of_type("path"):
            wanted: set[str] = set()
            for capability in path.attributes.get("capabilities", []):
                # read contains list, and write nothing else (acl/policy.go, expandVariablesCapabilities)
                wanted |= {"read", "list"} if capability == "read" else {capability}
            rules[path.labels[0]] = wanted
    return rules


@dataclass(slots=True)
class Acl:
    """The ACL system of one agent."""

    agent: FakeNomad
    enabled: bool
    bootstrap_index: int = 0

    def resolve(self, request: web.Request) -> None:
        """Find the caller before any handler runs; an unknown token is refused at once."""
        if not self.enabled:
            request[CALLER] = EVERYONE
            return
        caller = self.caller_of(token_of(request))
        if caller is None:
            write = request.method in ("PUT", "POST", "DELETE") and request.path.startswith("/v1/var/")
            raise Refusal(403, "Permission denied", write_headers(0) if write else None)
        request[CALLER] = caller

    def caller_of(self, secret: str) -> Caller | None:
        if not secret:
            return ANONYMOUS
        token = self.agent.state.tokens.get(secret)
        if token is not None:
            held = [self.agent.state.policies[name] for name in token["Policies"] or ()]
            return Caller(token["Type"] == "management", tuple(held), token)
        if secret.count(".") == 2:
            return self._workload(secret)
        return None

    def _workload(self, secret: str) -> Caller | None:
        claims = self.agent.identity.verify(secret)
        if claims is None:
            return None
        allocation = self.agent.state.allocations.get(claims["nomad_allocation_id"])
        if allocation is None or allocation.terminal:
            return None
        job = {"Namespace": claims["nomad_namespace"], "JobID": claims["nomad_job_id"]}
        attached = [p for p in self.agent.state.policies.values() if p.job and job.items() <= p.job.items()]
        return Caller(policies=tuple(attached))

    def allows(self, request: web.Request, check: Check) -> bool:
        return check(caller(request), request.query.get("namespace", "default"))

    def require(self, request: web.Request, check: Check, headers: dict[str, str] | None = None) -> None:
        if not self.allows(request, check):
            raise Refusal(403, "Permission denied", headers)

    def stream_allowed(self, request: web.Request, caller: Caller) -> bool:
        """The checks of the event stream (nomad.md 3.1)."""
        if caller.management:
            return True
        topics = {raw.partition(":")[0] for raw in request.query.getall("topic", ["*"])}
        wanted = request.query.get("namespace", "default")
        spaces = list(self.agent.state.namespaces) if wanted == "*" else [wanted]
        needs = {"Job": "read-job", "Allocation": "read-job", "Evaluation": "read-job", "Deployment": "read-job",
                 "Service": "read-job", "CSIPlugin": "read-job", "CSIVolume": "csi-read-volume"}  # fmt: skip
        for topic in topics:
            if topic == "Node":
                if not node_read(caller, ""):
                    return False
            elif topic not in needs or not all(needs[topic] in caller.capabilities(space) for space in spaces):
                return False
        return True

    def add_token(self, name: str, policies: list[str], *, kind: str = "client") -> Row:
        index = self.agent.state.commit("acl_token")
        token: Row = {
            "ExpirationTTL": "", "AccessorID": new_id(), "SecretID": new_id(), "Name": name, "Type": kind,
            "Policies": policies or None, "Roles": None, "Global": kind == "management",
            "Hash": base64.b64encode(hashlib.sha256(name.encode()).digest()).decode(), "CreateTime": stamp(),
            "ExpirationTime": None, "CreateIndex": index, "ModifyIndex": index,
        }  # fmt: skip
        self.agent.state.tokens[token["SecretID"]] = token
        return token

    def add_policy(self, name: str, rules: str, job: Row | None = None) -> None:
        self.agent.state.policies[name] = parse_policy(name, rules, job)
        self.agent.state.commit("acl_policy")


def caller(request: web.Request) -> Caller:
    """Who asks; everyone may do all while ACLs are off."""
    return request.get(CALLER) or EVERYONE


def token_of(request: web.Request) -> str:
    bearer = request.headers.get("Authorization", "")
    return request.headers.get("X-Nomad-Token", "") or bearer.removeprefix("Bearer ").strip()


async def serve(agent: FakeNomad, request: web.Request, rest: str) -> web.StreamResponse:
    """/v1/acl/…: bootstrap, policy, token, token/self."""
    head, _, name = rest.partition("/")
    if head == "bootstrap":
        return _bootstrap(agent, request)
    if head == "policy":
        return await _policy(agent, request, name)
    if head == "token":
        return await _token(agent, request, name)
    raise Refusal(404, "resource not found")  # not recorded; the fake has no other ACL endpoint


def _bootstrap(agent: FakeNomad, request: web.Request) -> web.StreamResponse:
    if request.method not in ("PUT", "POST"):
        raise invalid_method()
    if agent.acl.bootstrap_index:
        raise Refusal(400, f"ACL bootstrap already done (reset index: {agent.acl.bootstrap_index})")
    token = agent.acl.add_token("Bootstrap Token", [], kind="management")
    agent.acl.bootstrap_index = token["CreateIndex"]
    return answer(token, write_headers(token["CreateIndex"]))


async def _policy(agent: FakeNomad, request: web.Request, name: str) -> web.StreamResponse:
    agent.acl.require(request, management)
    if request.method not in ("PUT", "POST"):
        raise invalid_method()
    body = await read_json(request)
    job: Any = body.get("JobACL")
    agent.acl.add_policy(name, str(body.get("Rules", "")), job)
    return empty(write_headers(agent.state.index))


async def _token(agent: FakeNomad, request: web.Request, name: str) -> web.StreamResponse:
    if name == "self" and request.method == "GET":
        caller: Caller = request[CALLER]
        if caller.token is None:
            raise Refusal(403, "Permission denied")  # not recorded for a request without a token
        return answer(caller.token, read_headers(caller.token["ModifyIndex"]))
    agent.acl.require(request, management)
    if request.method not in ("PUT", "POST"):
        raise invalid_method()
    body = await read_json(request)
    # not recorded (the recorded tokens were made outside the recording); nomad.md 2.5
    token = agent.acl.add_token(
        str(body.get("Name", "")), list(body.get("Policies") or []), kind=str(body.get("Type", "client"))
    )
    return answer(token, write_headers(token["CreateIndex"]))
