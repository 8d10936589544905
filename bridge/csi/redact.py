"""Keeps secrets out of logs and errors, by the csi_secret mark of the protocol's own descriptors.

Nothing here decides anything; it must not be left out of any path that shows a request or a plugin's text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from bridge.pb.csi.v1 import csi_pb2

STRIPPED = "***stripped***"
_SHORTEST_SCRUBBED = 4
"""Shorter values are common words and digits; replacing them would garble every text."""
_LONGEST_TEXT = 2000


@functools.cache
def secret_fields(descriptor: Descriptor) -> frozenset[str]:
    """The names of this message's own fields that hold secrets."""
    return frozenset(field.name for field in descriptor.fields if field.GetOptions().Extensions[csi_pb2.csi_secret])


def secret_values(message: Message) -> tuple[str, ...]:
    """Every secret value in a request, wherever it is nested."""
    found: list[str] = []
    for field, value in message.ListFields():
        if field.name in secret_fields(message.DESCRIPTOR):
            found.extend(value.values() if isinstance(value, Mapping) else [str(value)])
        elif field.message_type is not None and not _is_map(field):
            for part in [value] if isinstance(value, Message) else value:
                found.extend(secret_values(part))
    return tuple(found)


def shown(message: Message) -> dict[str, object]:
    """A message as plain values for people, secrets stripped."""
    out: dict[str, object] = {}
    for field, value in message.ListFields():
        if field.name in secret_fields(message.DESCRIPTOR):
            out[field.name] = STRIPPED
        elif _is_map(field):
            out[field.name] = dict(value)
        elif field.message_type is not None:
            out[field.name] = shown(value) if isinstance(value, Message) else [shown(part) for part in value]
        else:
            out[field.name] = value if isinstance(value, str | bytes | int | float) else list(value)
    return out


def scrub(text: str, values: Iterable[str]) -> str:
    """A plugin's text without the secrets it was given, and without excess length."""
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_SCRUBBED:
            text = text.replace(value, STRIPPED)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
