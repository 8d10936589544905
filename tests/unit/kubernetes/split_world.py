"""A small cluster with both halves: an API server that keeps versions, a cluster half that sees late, and a driver
half that does one thing at a time, as upstream's. Nothing here decides for the cluster half: `binding.decide` does.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from adapters.kubernetes import names
from adapters.kubernetes.decide import binding
from adapters.kubernetes.facts import Facts
from tests.unit.kubernetes import objects as o

Object = dict[str, Any]
KINDS = ("snapshot", "content", "claim", "klass")
STAMP = "2026-11-21T12:30:00Z"


class Conflict(Exception):
    """A precondition does not hold."""


class Server:
    """One object of each kind, as the API server keeps it."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes = 0
        self._version = 100
        self.set("snapshot", o.snapshot(metadata__finalizers=[]))
        self.set("claim", o.claim(metadata__finalizers=[]))
        self.set("klass", o.klass())

    def get(self, kind: str) -> Object | None:
        return copy.deepcopy(self.objects.get(kind))

    def set(self, kind: str, item: Object) -> None:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        if item["metadata"].get("deletionTimestamp") and not item["metadata"].get("finalizers"):
            del self.objects[kind]
        else:
            self.objects[kind] = item

    def put(self, kind: str, body: Object, *, status: bool = False) -> None:
        known = self.objects.get(kind)
        self.writes += 1
        if known is None or known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict
        new = copy.deepcopy(known if status else body)
        if status:
            new["status"] = copy.deepcopy(body["status"])
        else:
            new["status"] = copy.deepcopy(known.get("status", {}))
            stamp = known["metadata"].get("deletionTimestamp")
            if stamp:
                assert set(new["metadata"].get("finalizers", ())) <= set(known["metadata"]["finalizers"])
                new["metadata"]["deletionTimestamp"] = stamp
        self.set(kind, new)

    def create(self, kind: str, body: Object) -> None:
        self.writes += 1
        if kind in self.objects:
            raise Conflict
        made = copy.deepcopy(body)
        made["metadata"]["uid"] = f"{kind}-{self._version}"
        self.set(kind, made)

    def delete(self, kind: str, version: str = "") -> None:
        self.writes += 1
        known = self.objects.get(kind)
        if known is None:
            return
        if version and known["metadata"]["resourceVersion"] != version:
            raise Conflict
        gone = copy.deepcopy(known)
        gone["metadata"].setdefault("deletionTimestamp", STAMP)
        self.set(kind, gone)


class ClusterHalf:
    """Sees what it was told of, and its own writes; forgets everything when it dies."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._cache: dict[str, Object | None] = {}
        self._saw_go = False
        self._looked_up = False
        self.waited_seconds = 0.0
        self.start()

    def start(self) -> None:
        """A new process: it lists everything."""
        self._saw_go = self._looked_up = False
        self._cache = {kind: self._server.get(kind) for kind in KINDS}

    def hear(self, kind: str) -> None:
        """The watch brings news of one kind."""
        before, after = self._cache[kind], self._server.get(kind)
        if kind == "content" and before is not None and after is None:
            self._saw_go = True
        self._cache[kind] = after

    def act(self) -> binding.Step:
        """Decide on what is known, and write."""
        step = binding.decide(self._view())
        try:
            self._perform(step)
        except Conflict:
            self.hear("content" if isinstance(step, binding.Create | binding.Amend | binding.Delete) else "snapshot")
        return step

    def _view(self) -> binding.View:
        known = {kind: copy.deepcopy(item) for kind, item in self._cache.items()}
        facts = Facts(uid=o.UID, volume=o.volume(), class_name="plain", **known)
        return binding.View(facts, waited_seconds=self.waited_seconds, content_known=self._saw_go or self._looked_up)

    def _perform(self, step: binding.Step) -> None:
        match step:
            case binding.Hold(body) | binding.Release(body):
                self._server.put("snapshot", body)
                self.hear("snapshot")
            case binding.Create(body):
                self._server.create("content", body)
                self.hear("content")
            case binding.Amend(body, _):
                self._server.put("content", body)
                self.hear("content")
            case binding.Publish(news):
                snapshot = self._cache["snapshot"]
                assert snapshot is not None
                self._server.put("snapshot", {**snapshot, "status": news.status}, status=True)
                self.hear("snapshot")
            case binding.Delete(content):
                self._server.delete("content", content["metadata"]["resourceVersion"])
                self.hear("content")
            case binding.Look():
                self.hear("content")
                self._looked_up = True
            case binding.HoldClaim() | binding.DropClaim():
                self._on_claim(isinstance(step, binding.HoldClaim))
            case _:
                pass

    def _on_claim(self, hold: bool) -> None:
        """As `claims.py` does it: a conflict is met on the spot."""
        self.hear("claim")
        claim = self._cache["claim"]
        if claim is None or (hold and claim["metadata"].get("deletionTimestamp")):
            return
        finalizers = [name for name in claim["metadata"]["finalizers"] if name != names.CLAIM_FINALIZER]
        claim["metadata"]["finalizers"] = [*finalizers, names.CLAIM_FINALIZER] if hold else finalizers
        self._server.put("claim", claim)
        self.hear("claim")


@dataclasses.dataclass(slots=True)
class Backend:
    """The snapshots by CSI name, and all that ever was."""

    cuts: dict[str, str] = dataclasses.field(default_factory=dict)
    made: int = 0
    deleted: int = 0

    def create(self, name: str) -> str:
        if name not in self.cuts:
            self.made += 1
            self.cuts[name] = f"handle-{self.made}"
        return self.cuts[name]

    def delete(self, handle: str) -> None:
        self.deleted += handle in self.cuts.values()
        self.cuts = {name: kept for name, kept in self.cuts.items() if kept != handle}


class DriverHalf:
    """One write or one call at a time, from the content as it stands, after upstream's rules."""

    def __init__(self, server: Server, backend: Backend) -> None:
        self._server = server
        self._backend = backend
        self._answer = ""
        self.loses_the_next_reply = False

    def start(self) -> None:
        """A new process: it knows no answer."""
        self._answer = ""

    def act(self) -> None:
        content = self._server.get("content")
        if content is None:
            return
        notes = content["metadata"].get("annotations") or {}
        status = content.get("status") or {}
        going = bool(content["metadata"].get("deletionTimestamp"))
        marked = names.BEING_CREATED in notes
        handle = status.get("snapshotHandle")
        to_go = going and names.BEING_DELETED in notes and not marked
        if not handle and not to_go and (marked or not status):
            self._create(content, marked)
        elif marked:
            self._note(content, marked=False)
        elif to_go:
            self._let_go(content, handle)
        elif handle and not status.get("readyToUse"):
            self._server.put("content", {**content, "status": {**status, "readyToUse": True}}, status=True)

    def _create(self, content: Object, marked: bool) -> None:
        if not marked:
            self._note(content, marked=True)
        elif not self._answer:
            name = f"snapshot-{content['spec']['volumeSnapshotRef']['uid']}"
            answer = self._backend.create(name)
            self._answer = "" if self.loses_the_next_reply else answer
            self.loses_the_next_reply = False
        else:
            told = {"snapshotHandle": self._answer, "readyToUse": False, "creationTime": 1_763_700_000_000_000_000}
            self._server.put("content", {**content, "status": told}, status=True)
            self._answer = ""

    def _let_go(self, content: Object, handle: str | None) -> None:
        if handle and content["spec"]["deletionPolicy"] == "Delete":
            self._backend.delete(handle)
            self._server.put("content", {**content, "status": {}}, status=True)
            return
        metadata = content["metadata"]
        finalizers = [name for name in metadata["finalizers"] if name != names.CONTENT_FINALIZER]
        self._server.put("content", {**content, "metadata": {**metadata, "finalizers": finalizers}})

    def _note(self, content: Object, *, marked: bool) -> None:
        notes = dict(content["metadata"].get("annotations") or {})
        if marked:
            notes[names.BEING_CREATED] = "yes"
        else:
            notes.pop(names.BEING_CREATED)
        self._server.put("content", {**content, "metadata": {**content["metadata"], "annotations": notes}})
