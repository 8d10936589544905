"""The stories, and how one is told: a batch is made under a fault, then deleted under a fault, then counted."""

from __future__ import annotations

import dataclasses

import grpc

from tests.support.campaign import faults
from tests.support.campaign.field import Field, Score


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What goes wrong while a batch is made and while it is deleted."""

    name: str
    what: str
    creating: faults.Fault = faults.calm
    deleting: faults.Fault = faults.calm
    early: bool = False
    """Delete at once, while the creates are under way."""
    kept: bool = False
    """The policy is flipped to Retain before the delete: the data must stay."""


Code = grpc.StatusCode
STORIES = (
    Story("calm", "nothing", faults.calm),
    Story("api-killed", "kill -9 of the API server, back after 2 s",
          faults.api_server_killed, faults.api_server_killed),
    Story("etcd-slow", "etcd stands still for three quarters of the time", faults.etcd_slow, faults.etcd_slow),
    Story("watch-cut", "every watch is cut in the middle of a line", faults.watches_cut, faults.watches_cut),
    Story("conflicts", "every third write is answered 409", *[faults.refusing(409, "Conflict")] * 2),
    Story("throttled", "every second write is answered 429, Retry-After 1",
          *[faults.refusing(429, "TooManyRequests", 2, retry_after="1")] * 2),
    Story("expired", "every second watch is answered 410",
          *[faults.refusing(410, "Expired", 2, reads=True)] * 2),
    Story("answers-lost", "every third write takes effect and is not answered",
          faults.answers_lost, faults.answers_lost),
    Story("internal", "creates take effect and are answered INTERNAL; deleted meanwhile",
          faults.reply_lost(Code.INTERNAL), early=True),
    Story("timeout", "creates take effect and are answered DEADLINE_EXCEEDED; deleted meanwhile",
          faults.reply_lost(Code.DEADLINE_EXCEEDED), early=True),
    Story("lost-then-refused", "the first create takes effect and is answered INTERNAL, then INVALID_ARGUMENT; "
          "deleted meanwhile", faults.first_replies_lost_then_refused, early=True),
    Story("slow-cut", "a create takes 2 s; deleted meanwhile", faults.slow_cut, early=True),
    Story("not-ready", "cut and not ready for 4 s; deleted meanwhile", faults.not_ready, early=True),
    Story("plugin-killed", "kill -9 of the plugin during the cuts", faults.driver_killed),
    Story("killed-at-cut", "kill -9 of the driver half between the cut and its status",
          faults.killed_at("CreateSnapshot"), faults.killed_at("DeleteSnapshot")),
    Story("killed-at-cut-deleted", "the same, and deleted before it is back",
          faults.killed_at("CreateSnapshot", 0), early=True),
    Story("cluster-half-killed", "kill -9 of the cluster half, three times",
          faults.cluster_half_killed, faults.cluster_half_killed),
    Story("all-killed", "kill -9 of everything, three times", faults.all_killed, faults.all_killed),
    Story("retained", "the policy is flipped to Retain, then deleted while all is killed", faults.calm,
          faults.all_killed, kept=True),
)  # fmt: skip


def tell(story: Story, field: Field) -> Score:
    """Tell one story and count. The room is empty before and after."""
    score = Score()
    with story.creating(field):
        names = field.ask(story.name)
        if story.early:
            field.until(lambda: bool(field.backend()), 3.0)
            field.delete(names)
    if not story.early:
        _count_made(field, names, score)
    kept = field.backend() if story.kept else set()
    if story.kept:
        field.retain()
    with story.deleting(field):
        field.delete(names)
    _count_gone(field, names, kept, score)
    field.clean()
    return score


def _count_made(field: Field, names: list[str], score: Score) -> None:
    field.until(lambda: field.ready(names) == len(names))
    found, contents, backend = field.snapshots(), field.contents(), field.backend()
    handles = {one["metadata"]["name"]: (one.get("status") or {}).get("snapshotHandle") for one in contents}
    for name in names:
        status = found.get(name, {}).get("status") or {}
        if name not in found:
            score.lost += 1
        elif not status.get("readyToUse"):
            score.stuck += 1
        elif handles.get(status.get("boundVolumeSnapshotContentName")) not in backend:
            score.lost += 1
    score.doubled += sum(max(len(field.backend(volume)) - 1, 0) for volume in field.volumes)


def _count_gone(field: Field, names: list[str], kept: set[str], score: Score) -> None:
    def gone() -> bool:
        left = set(field.snapshots()) & set(names)
        return not left and (bool(kept) or not (field.contents() or field.backend()))

    field.until(gone)
    contents = field.contents()
    named = {(one.get("status") or {}).get("snapshotHandle") for one in contents}
    score.stuck += len(set(field.snapshots()) & set(names))
    backend = field.backend()
    if kept:
        score.lost += len(kept - backend)
        return
    score.stuck += len(contents)
    score.leaked += len(backend - named)
