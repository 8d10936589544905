"""The filters of the in-memory desk: which snapshots a list shows, and to whom."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.model.view import SnapshotView
from bridge.ports.identity import Caller
from bridge.ports.ledger import EntryFilter


def matches(which: EntryFilter, view: SnapshotView) -> bool:
    return (
        which.cluster in ("", view.key.cluster)
        and which.namespace in ("", view.namespace)
        and which.volume in ("", view.volume)
        and which.driver in ("", view.driver)
        and (not which.states or view.status.state.value in which.states)
        and all(view.labels.get(name) == value for name, value in which.labels.items())
        and all(_like(view.users.get(name, ()), value) for name, value in which.users.items())
        and view.key.uid.startswith(which.uid_prefix)
    )


def _like(known: Sequence[str], wanted: str) -> bool:
    """A `*` at the end stands for any rest."""
    return any(one.startswith(wanted[:-1]) if wanted.endswith("*") else one == wanted for one in known)


def may(caller: Caller, view: SnapshotView) -> bool:
    return not caller.volumes or view.volume in caller.volumes
