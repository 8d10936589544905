"""Names of things that a pass works on. A key says which, never what happened."""

from __future__ import annotations

import dataclasses

SNAPSHOT = "snapshot"
GROUP = "group"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Key:
    """One object of one cluster. `uid` is the orchestrator's own identity of it, never reused."""

    cluster: str
    kind: str
    uid: str

    def __post_init__(self) -> None:
        for field in ("cluster", "kind", "uid"):
            if not getattr(self, field):
                raise ValueError(f"a key needs a {field}")
        if "/" in self.cluster or "/" in self.kind:
            raise ValueError("a key's cluster and kind may not contain '/'")

    def __str__(self) -> str:
        return f"{self.cluster}/{self.kind}/{self.uid}"

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read what `str(key)` wrote.

        >>> Key.parse("east/snapshot/a/b").uid
        'a/b'
        """
        parts = text.split("/", 2)
        if len(parts) != 3:
            raise ValueError(f"not a key: {text!r} (want CLUSTER/KIND/UID)")
        return cls(*parts)


def snapshot_key(cluster: str, uid: str) -> Key:
    """The key of the snapshot with this identity in this cluster."""
    return Key(cluster, SNAPSHOT, uid)


def group_key(cluster: str, uid: str) -> Key:
    """The key of the group snapshot with this identity in this cluster."""
    return Key(cluster, GROUP, uid)
