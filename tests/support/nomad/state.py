"""The fake agent's own state: one Raft-like index, the tables, and a way to wait for a change.

It must not read a recording, a file or a socket; the endpoint modules give it meaning.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str]


def now_ns() -> int:
    return time.time_ns()


def stamp(ns: int | None = None) -> str:
    """An instant as Go writes it in JSON: RFC 3339 with nanoseconds."""
    ns = now_ns() if ns is None else ns
    head = datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{head}.{ns % 1_000_000_000:09d}Z"


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class Volume:
    """A registered CSI volume; the secrets and flags are kept here and leave only redacted."""

    spec: Row
    secrets: dict[str, str] = field(default_factory=dict)
    mount_flags: list[str] | None = None
    readers: dict[str, str] = field(default_factory=dict)  # allocation id -> node id
    writers: dict[str, str] = field(default_factory=dict)
    access_mode: str = ""
    attachment_mode: str = ""

    @property
    def key(self) -> Key:
        return self.spec["Namespace"], self.spec["ID"]

    @property
    def in_use(self) -> bool:
        return bool(self.readers or self.writers)


@dataclass(slots=True)
class Allocation:
    """One allocation: what the server and the client know of it."""

    id: str
    namespace: str
    job: Row  # the job version it was made from, in wire form
    group: str
    slot: int
    eval_id: str
    node_id: str
    create_index: int
    modify_index: int
    alloc_modify_index: int
    deployment_id: str = ""
    desired: str = "run"
    desired_description: str = ""
    client: str = "pending"
    client_description: str = ""
    create_time: int = field(default_factory=now_ns)
    modify_time: int = field(default_factory=now_ns)
    tasks: dict[str, Row] = field(default_factory=dict)
    health: Row | None = None
    previous: str = ""
    next: str = ""
    networked: bool = False

    @property
    def terminal(self) -> bool:
        return self.client in ("complete", "failed", "lost")

    @property
    def group_spec(self) -> Row:
        return next(g for g in self.job["TaskGroups"] if g["Name"] == self.group)

    @property
    def name(self) -> str:
        return f"{self.job['ID']}.{self.group}[{self.slot}]"


class State:
    """The tables, the index and the change bell."""

    def __init__(self, *, node_name: str, region: str = "global") -> None:
        self.index = 8
        self.region = region
        self.node_id = new_id()
        self.node_name = node_name
        self.tables: dict[str, int] = {}
        self.namespaces: dict[str, Row] = {}
        self.volumes: dict[Key, Volume] = {}
        self.plugins: dict[str, Any] = {}
        self.jobs: dict[Key, list[Row]] = {}  # versions, newest last
        self.allocations: dict[str, Allocation] = {}
        self.evaluations: dict[str, Row] = {}
        self.deployments: dict[str, Row] = {}
        self.variables: dict[Key, Any] = {}
        self.policies: dict[str, Any] = {}
        self.tokens: dict[str, Any] = {}
        self._bell = asyncio.Event()
        self.put_namespace("default", "Default shared namespace", index=1)

    def put_namespace(self, name: str, description: str = "", *, index: int | None = None) -> None:
        index = self.commit("namespaces") if index is None else index
        self.tables["namespaces"] = index
        self.namespaces[name] = {
            "Capabilities": None, "ConsulConfiguration": None, "CreateIndex": index, "Description": description,
            "Hash": "", "Meta": None, "ModifyIndex": index, "Name": name, "NodePoolConfiguration": None,
            "OptionalExtraClaims": None, "Quota": "", "RequiredExtraClaims": None, "VaultConfiguration": None,
        }  # fmt: skip

    def commit(self, *tables: str) -> int:
        """Take the next index for a write to these tables. Call `ring` when the write is done."""
        self.index += 1
        for table in tables:
            self.tables[table] = self.index
        self.ring()
        return self.index

    def go_back(self, index: int) -> None:
        """Forget every job version that is newer than this index, and count from it again."""
        for key, versions in list(self.jobs.items()):
            kept = [row for row in versions if row["JobModifyIndex"] <= index]
            self.jobs[key] = kept
            if not kept:
                del self.jobs[key]
        self.index = index
        self.tables = {table: min(held, index) for table, held in self.tables.items()}

    def table_index(self, tables: Iterable[str]) -> int:
        return max((self.tables.get(table, 0) for table in tables), default=0) or 1

    def ring(self) -> None:
        """Wake every blocking query so that it looks again."""
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def change(self, timeout_seconds: float) -> None:
        """Return at the next change or after the time."""
        bell = self._bell
        try:
            async with asyncio.timeout(timeout_seconds):
                await bell.wait()
        except TimeoutError:
            return

    def job(self, namespace: str, job_id: str) -> Row | None:
        versions = self.jobs.get((namespace, job_id))
        return versions[-1] if versions else None

    def job_allocations(self, namespace: str, job_id: str) -> list[Allocation]:
        rows = (a for a in self.allocations.values() if a.namespace == namespace and a.job["ID"] == job_id)
        return sorted(rows, key=lambda a: -a.create_index)

    def latest_deployment(self, namespace: str, job_id: str) -> Row | None:
        rows = [d for d in self.deployments.values() if d["Namespace"] == namespace and d["JobID"] == job_id]
        return max(rows, key=lambda d: d["CreateIndex"], default=None)
