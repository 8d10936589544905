"""A volume's claims and its views: who holds it, what readers see of it, the stream's `CSIVolumeClaim` lines.

It must not show a secret or a mount flag.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from tests.support.nomad import allocations, plugins
from tests.support.nomad.events import Event, event
from tests.support.nomad.state import Allocation, Row, Volume

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_SINGLE_WRITER = ("single-node-writer", "multi-node-single-writer")


def _counts(volume: Volume, agent: FakeNomad) -> Row:
    plugin = plugins.find(agent, volume.spec["PluginID"])
    if plugin is None:
        return {"ControllerRequired": False, "ControllersExpected": 0, "ControllersHealthy": 0, "NodesExpected": 0,
                "NodesHealthy": 0, "Schedulable": False}  # fmt: skip
    shown = plugin.stub()
    keys = ("ControllerRequired", "ControllersExpected", "ControllersHealthy", "NodesExpected", "NodesHealthy")
    return {**{key: shown[key] for key in keys}, "Schedulable": plugin.healthy}


def stub(volume: Volume, agent: FakeNomad) -> Row:
    spec = volume.spec
    keys = ("CreateIndex", "CreateTime", "ExternalID", "ID", "ModifyIndex", "ModifyTime", "Name", "Namespace",
            "PluginID", "Provider")  # fmt: skip
    return {
        "AccessMode": volume.access_mode, "AttachmentMode": volume.attachment_mode,
        "CurrentReaders": len(volume.readers), "CurrentWriters": len(volume.writers),
        "ResourceExhausted": None, "Topologies": copy.deepcopy(spec["Topologies"]),
        **{key: spec[key] for key in keys}, **_counts(volume, agent),
    }  # fmt: skip


def bare(volume: Volume) -> Row:
    """The form that create and register answer with: not yet folded with the plugin (nomad-verified.md C)."""
    spec = {key: copy.deepcopy(value) for key, value in volume.spec.items() if key != "FSType"}
    flags = ["[REDACTED]"] if volume.mount_flags else None
    return {
        **spec, "AccessMode": volume.access_mode, "Allocations": [], "AttachmentMode": volume.attachment_mode,
        "ControllerRequired": False, "ControllersExpected": 0, "ControllersHealthy": 0,
        "MountOptions": {"FSType": volume.spec["FSType"], "MountFlags": flags}, "NodesExpected": 0,
        "NodesHealthy": 0, "ReadAllocs": dict.fromkeys(volume.readers), "ResourceExhausted": None,
        "Schedulable": False, "Secrets": None, "WriteAllocs": dict.fromkeys(volume.writers),
    }  # fmt: skip


def full(volume: Volume, agent: FakeNomad, *, stubs: bool = True) -> Row:
    row = {**bare(volume), **_counts(volume, agent)}
    if stubs:
        holders = [agent.state.allocations.get(each) for each in {**volume.writers, **volume.readers}]
        # A claim of a purged job's allocation has no stub to show (nomad-verified.md A.9).
        row["Allocations"] = [allocations.stub(a, agent.state) for a in holders if a is not None]
    return row


def changed(volume: Volume, agent: FakeNomad, *, unfolded: bool = False) -> Event:
    row = bare(volume) if unfolded else full(volume, agent, stubs=False)
    spec = volume.spec
    return event(
        "CSIVolume", spec["ID"], spec["Namespace"], {"Volume": row}, [spec["ID"], spec["Name"], spec["PluginID"]]
    )


def only_terminal(volume: Volume, agent: FakeNomad) -> bool:
    holders = (agent.state.allocations.get(each) for each in {**volume.writers, **volume.readers})
    return all(holder is None or holder.terminal for holder in holders)


def wanted(allocation: Allocation) -> list[tuple[str, Row]]:
    """The CSI volumes that an allocation mounts: volume id and the group's volume block."""
    rows = []
    for block in (allocation.group_spec.get("Volumes") or {}).values():
        if block["Type"] == "csi":
            source = f"{block['Source']}[{allocation.slot}]" if block.get("PerAlloc") else block["Source"]
            rows.append((source, block))
    return rows


def blocked_by_other(volume: Volume, block: Row, job_id: str, agent: FakeNomad) -> bool:
    """A write claim of another job's allocation blocks placement (nomad.md 1.6)."""
    if block.get("ReadOnly") or block.get("AccessMode") not in _SINGLE_WRITER:
        return False
    holders = (agent.state.allocations.get(each) for each in volume.writers)
    return any(holder is None or holder.job["ID"] != job_id for holder in holders)


def free_for(volume: Volume, block: Row) -> bool:
    """Whether the claim can be taken now; else the client waits and asks again (nomad.md 1.6)."""
    return block.get("ReadOnly") or block.get("AccessMode") not in _SINGLE_WRITER or not volume.writers


def take(agent: FakeNomad, volume: Volume, block: Row, allocation: Allocation) -> None:
    holders = volume.readers if block.get("ReadOnly") else volume.writers
    holders[allocation.id] = allocation.node_id
    volume.access_mode = block.get("AccessMode") or volume.spec["RequestedCapabilities"][0]["AccessMode"]
    volume.attachment_mode = block.get("AttachmentMode") or volume.spec["RequestedCapabilities"][0]["AttachmentMode"]
    _tell(agent, volume)


def release(agent: FakeNomad, volume: Volume, allocation_id: str) -> None:
    """Free the claim in the steps that the stream shows: five lines, the mode empty from the third on."""
    for step in range(5):
        if step == 2:
            volume.readers.pop(allocation_id, None)
            volume.writers.pop(allocation_id, None)
            if not volume.in_use:
                volume.access_mode = volume.attachment_mode = ""
        _tell(agent, volume)


def _tell(agent: FakeNomad, volume: Volume) -> None:
    index = agent.state.commit("csi_volumes")
    volume.spec["ModifyIndex"] = index
    agent.events.publish(index, "CSIVolumeClaim", [changed(volume, agent)])
