"""Names of snapshots that hooks and `nomad run` ask for: one for each volume, whatever its id is made of.

A name that is taken is refused by the service, and then a deployment stops for no reason.
"""

from __future__ import annotations

import re

from adapters.nomad.commands import hook, run
from adapters.nomad.commands.task import Task
from bridge.api.fields import NAME_LIMIT, NAME_PATTERN

TASK = Task("web", "g", "t", "default", "a1b2c3d4-0000-4000-8000-000000000000", "0", "")
ALIKE = (
    "web-data", "web.data", "Web-Data", "web data", "web/data", "web-data-", "データ", "ボリューム", "[[", "]]",
    "data[0]", "data-0", *(letter * 60 + end for letter in "xy" for end in "ab"), *("z" * 200 + end for end in "ab"),
)  # fmt: skip


def test_volumes_whose_ids_look_alike_have_snapshots_of_their_own() -> None:
    for names in (
        [hook.snapshot_name(TASK, volume, "before") for volume in ALIKE],
        [run._name(volume, 3, "30f371d8") for volume in ALIKE],
    ):
        assert len(set(names)) == len(ALIKE), sorted(names)
        assert all(re.match(NAME_PATTERN, name) and len(name) <= NAME_LIMIT for name in names), names


def test_a_plain_id_stays_as_it_is() -> None:
    assert hook.snapshot_name(TASK, "web-data", "final") == "web-web-data-final-a1b2c3d4"
    assert run._name("Web_data.1", 2, "30f371d8") == "Web_data.1-v2-30f371d8"
    assert hook.snapshot_name(TASK, "data[0]", "before") == hook.snapshot_name(TASK, "data[0]", "before")
    assert hook.idempotency_key(TASK, "data[0]", "before") != hook.idempotency_key(TASK, "data-0", "before")
