"""Flags of the driver half: how it names snapshots and what it tells the driver."""

from __future__ import annotations

import re

import pytest

from tests.support.stage import Stage


@pytest.mark.slow
class Flagged:
    """Each method is a scenario on one stack."""

    @pytest.mark.alone
    def test_the_prefix_and_length_of_names_and_the_metadata_follow_the_flags(self, stage: Stage) -> None:
        """`--snapshot-name-prefix`, `--snapshot-name-uuid-length`, and no `--extra-create-metadata`."""
        claim = stage.claim()
        stage.stack.restart_driver_half("--snapshot-name-prefix=cut", "--snapshot-name-uuid-length=8")
        name = stage.snapshot(claim)
        uid = stage.until_ready(name)["metadata"]["uid"]
        (call,) = stage.creates(claim.handle)
        assert call.request.name == f"cut-{uid.replace('-', '')[:8]}"  # type: ignore[union-attr]
        assert dict(call.request.parameters) == {}  # type: ignore[union-attr]
        stage.remove(name)
        stage.stack.restart_driver_half()
        name = stage.snapshot(claim)
        stage.until_ready(name)
        again = stage.creates(claim.handle)[-1]
        assert re.fullmatch(r"snapshot-[0-9a-f-]{36}", again.request.name)  # type: ignore[union-attr]
        stage.remove(name)
