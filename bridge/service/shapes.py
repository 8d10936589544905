"""What a new volume is to be like, written into an operation when it starts: a repeat must ask for the very same.

A shape is taken from what was asked, then from what was kept at the cut, then from the source as it is now.
"""

from __future__ import annotations

import dataclasses
import json

from bridge.model.secret import SecretRef
from bridge.model.view import RestoreDraft
from bridge.model.volume import AccessMode, Volume, VolumeMode, VolumeShape


def choose(
    draft: RestoreDraft, kept: VolumeShape | None, like: Volume | None, *, least_bytes: int, secret: SecretRef
) -> VolumeShape:
    """The shape to make. `secret` is the last resort, where neither the source nor its config names one."""
    base = kept or (like.shape() if like is not None else VolumeShape())
    return dataclasses.replace(
        base,
        capacity_bytes=draft.capacity_bytes or max(least_bytes, base.capacity_bytes),
        mode=draft.mode or base.mode,
        access_modes=draft.access_modes or base.access_modes,
        parameters={**base.parameters, **draft.parameters},
        accessible=draft.topology or base.accessible,
        secret=draft.secret or (like.secret if like is not None else SecretRef()) or base.secret or secret,
    )


def to_text(shape: VolumeShape) -> str:
    """As JSON, with a secret's reference and never its value."""
    return json.dumps(
        {
            "capacity_bytes": shape.capacity_bytes,
            "mode": shape.mode.value,
            "access_modes": [mode.value for mode in shape.access_modes],
            "fs_type": shape.fs_type,
            "parameters": dict(shape.parameters),
            "secret": str(shape.secret),
            "accessible": [dict(segments) for segments in shape.accessible],
        },
        sort_keys=True,
    )


def from_text(text: str) -> VolumeShape:
    """What `to_text` wrote."""
    values = json.loads(text)
    return VolumeShape(
        capacity_bytes=values["capacity_bytes"],
        mode=VolumeMode(values["mode"]),
        access_modes=tuple(AccessMode(mode) for mode in values["access_modes"]),
        fs_type=values["fs_type"],
        parameters=values["parameters"],
        secret=SecretRef.parse(values["secret"]),
        accessible=tuple(values["accessible"]),
    )
