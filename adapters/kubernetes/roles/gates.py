"""`--feature-gates` as upstream reads it: NAME=true|false, separated by commas. An unknown gate is refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from adapters.kubernetes.flags import Flag, Given, Kind
from bridge.model.failure import InvalidError

GROUPS = "CSIVolumeGroupSnapshot"
RELEASE = "ReleaseLeaderElectionOnExit"

DEFAULTS: Mapping[str, bool] = {GROUPS: True, RELEASE: False}
"""Ours gives its lease back at the exit whatever the second says: who takes over need not wait."""

TAKEN = ("AllAlpha", "AllBeta")
"""Every program of upstream knows these. They turn on nothing here."""

FLAGS = (
    Flag(
        "feature-gates",
        Kind.TEXTS,
        (),
        f"NAME=true or NAME=false, separated by commas; known: {', '.join(DEFAULTS)}",
    ),
)


def read(given: Given) -> Mapping[str, bool]:
    """Gate -> whether it is on. InvalidError names the bad part and the nearest gate."""
    return parse(given.texts("feature-gates"), DEFAULTS)


def parse(words: Iterable[str], defaults: Mapping[str, bool]) -> Mapping[str, bool]:
    """The same for a program with other gates.

    >>> parse(["Topology=FALSE"], {"Topology": True, "AllAlpha": False})
    {'Topology': False, 'AllAlpha': False}
    """
    found = dict(defaults)
    for word in words:
        name, _, text = word.strip().partition("=")
        if name not in defaults and name not in TAKEN:
            near = difflib.get_close_matches(name, defaults, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known gates: {', '.join(defaults)}"
            raise InvalidError(f"there is no gate {name!r}", field="--feature-gates", hint=hint)
        if text.lower() not in ("true", "false"):
            raise InvalidError(f"{word!r} is no valid gate", field="--feature-gates", hint=f"Write {name}=true")
        if name in defaults:
            found[name] = text.lower() == "true"
    return found
