"""Choosing the default class, on every stack. One after the other: the default classes of a driver are shared."""

from __future__ import annotations

import pytest

from tests.support import stage as stages
from tests.support.stage import Stage, error_text


@pytest.mark.slow
class Defaulting:
    """Each method is a scenario on one stack."""

    @pytest.mark.alone
    def test_without_a_default_class_the_owner_is_told_and_one_is_enough(self, stage: Stage) -> None:
        """Cases 4 and 35: the class is filled in, and a mark that is not "true" is none (case 49)."""
        claim = stage.claim()
        unmarked = stage.klass()
        stage.patch("classes", unmarked, {"metadata": {"annotations": {stages.DEFAULT_CLASS: "yes"}}})
        name = stage.snapshot(claim, None)
        stage.until_event("SetDefaultSnapshotClassFailed", name)
        stage.until_error(name, "cannot find default snapshot class")
        klass = stage.klass(default=True)
        found = stage.until_ready(name)
        assert found["spec"]["volumeSnapshotClassName"] == klass
        assert error_text(found) == ""
        assert stage.content_of(name)["spec"]["volumeSnapshotClassName"] == klass
        stage.remove(name)
        stage.delete("classes", klass)

    @pytest.mark.alone
    def test_two_default_classes_are_told_and_taking_one_away_is_enough(self, stage: Stage) -> None:
        claim = stage.claim()
        first, second = stage.klass(default=True), stage.klass(default=True)
        stage.klass(f"{stage.namespace}-other-driver", driver="other.interop.test", default=True)
        stage.let_it_be_heard()
        name = stage.snapshot(claim, None)
        stage.until_event("SetDefaultSnapshotClassFailed", name)
        stage.until_error(name, "2 default snapshot classes were found")
        assert stage.creates(claim.handle) == []
        stage.delete("classes", second)
        found = stage.until_ready(name)
        assert found["spec"]["volumeSnapshotClassName"] == first
        stage.remove(name)
        stage.delete("classes", first)

    @pytest.mark.alone
    def test_a_class_that_is_named_is_kept_whatever_the_default_is(self, stage: Stage) -> None:
        claim = stage.claim()
        default = stage.klass(default=True)
        stage.let_it_be_heard()
        name = stage.snapshot(claim)
        assert stage.until_ready(name)["spec"]["volumeSnapshotClassName"] == stage.class_name
        stage.remove(name)
        stage.delete("classes", default)
