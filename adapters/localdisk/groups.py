"""Group snapshots: several volumes cut at one moment, all of them or none.

Volumes that somebody may be writing to can be cut together only as mounted images, which stand still together; other
forms are refused, because a CSI group promises one point in time. It must not know of gRPC messages or of locks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from adapters.localdisk import failures, records, snapshots
from adapters.localdisk.content import Content
from adapters.localdisk.records import Form, Group, Volume
from adapters.localdisk.store import Store
from adapters.localdisk.uses import Uses

PARAMETERS = snapshots.PARAMETERS | {
    "consistency": "'none' allows volumes that may be written to and cannot be frozen; the moments then differ"
}


@dataclass(frozen=True, slots=True)
class Groups:
    """The group snapshots of one driver."""

    store: Store
    content: Content
    uses: Uses

    def create(self, name: str, volume_ids: tuple[str, ...], parameters: dict[str, str]) -> Group:
        """Cuts all the volumes, or finds the group that an equal request cut."""
        key = records.group_id(name)
        upload_ns = snapshots.upload_seconds(parameters)
        found = self.store.groups.get(key)
        if found is not None and found.deleting:
            self._finish_delete(found)
            found = None
        if found is not None:
            same = {m.source_volume_id for m in found.members} == set(volume_ids)
            if not same or found.parameters != parameters:
                failures.already_exists(f"group snapshot {name!r} exists with other volumes or parameters")
            return found
        volumes = [self._volume(v, parameters) for v in volume_ids]
        plans = [
            snapshots.planned(records.member_id(name, v.id), f"{name}/{v.id}", v, parameters, key) for v in volumes
        ]
        moment = self.content.cut(list(zip(volumes, plans, strict=True)))
        members = tuple(snapshots.stamped(p, moment, upload_ns) for p in plans)
        group = Group(id=key, name=name, created_ns=moment, members=members, parameters=parameters)
        try:
            self.store.groups.put(group)
        except OSError:
            self._discard(group)
            raise
        return group

    def _volume(self, key: str, parameters: dict[str, str]) -> Volume:
        volume = self.store.volume(key)
        if volume is None:
            failures.not_found(f"source volume {key!r} does not exist")
        consistency = parameters.get("consistency", "strict")
        if consistency not in ("strict", "none"):
            failures.invalid(f"parameters[consistency] {consistency!r}: 'strict' or 'none'")
        if volume.form is not Form.IMAGE and consistency == "strict" and self.uses.written_to(key):
            failures.precondition(
                f"volume {key} ({volume.form.value}) may be written to and cannot be frozen: unpublish it, keep its "
                f"volumes as images (--mode image), or set parameters[consistency] to 'none'"
            )
        return volume

    def get(self, key: str, snapshot_ids: tuple[str, ...]) -> Group:
        """A group by its id and the ids of all its members. Raises NOT_FOUND or INVALID_ARGUMENT."""
        found = self.store.groups.get(key)
        if found is None or found.deleting:
            failures.not_found(f"group snapshot {key!r} does not exist")
        _check_members(found, snapshot_ids)
        return found

    def delete(self, key: str, snapshot_ids: tuple[str, ...]) -> None:
        """Deletes a group with all its members. An unknown one is fine."""
        found = self.store.groups.get(key)
        if found is None:
            return
        if not found.deleting:
            _check_members(found, snapshot_ids)
            found = dataclasses.replace(found, deleting=True)
            self.store.groups.put(found)
        self._finish_delete(found)

    def _finish_delete(self, group: Group) -> None:
        self._discard(group)
        self.store.groups.remove(group.id)

    def _discard(self, group: Group) -> None:
        for member in group.members:
            self.content.discard(member)

    def finish_deletes(self) -> None:
        """At the start: completes what was being deleted when the driver was killed."""
        for group in self.store.groups.all():
            if group.deleting:
                self._finish_delete(group)


def _check_members(group: Group, snapshot_ids: tuple[str, ...]) -> None:
    if {m.id for m in group.members} != set(snapshot_ids):
        failures.invalid(f"snapshot_ids are not the {len(group.members)} members of group snapshot {group.id}")
