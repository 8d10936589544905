"""Wrong cores, each with one rule taken out. A suite that lets one live proves nothing."""

from __future__ import annotations

import dataclasses

import pytest

from bridge.decide import action as act
from bridge.decide import snapshot
from bridge.model.outcome import Failed
from bridge.model.snapshot import DeletionPolicy, HandleSource, Note, Record, Wish
from bridge.service import work
from tests.support.story import FAULTS, live
from tests.support.world import Breach, Decide, World


def no_intent_note(seen: snapshot.Observed, now: float) -> act.Action:
    """Calls the plugin without writing down what it is about to do."""
    step = snapshot.decide(seen, now)
    return act.Create(step.note) if isinstance(step, act.NoteIntent) else step


def no_hold(seen: snapshot.Observed, now: float) -> act.Action:
    """Never asks the orchestrator to keep the request."""
    request = dataclasses.replace(seen.request, held=True)
    return snapshot.decide(dataclasses.replace(seen, request=request), now)


def forgets_retain(seen: snapshot.Observed, now: float) -> act.Action:
    """Deletes whatever the policy says."""
    request = dataclasses.replace(seen.request, policy=DeletionPolicy.DELETE)
    record = seen.record and dataclasses.replace(seen.record, policy=DeletionPolicy.DELETE)
    return snapshot.decide(dataclasses.replace(seen, request=request, record=record), now)


def skips_back_off(seen: snapshot.Observed, now: float) -> act.Action:
    """Calls again at once."""
    return snapshot.decide(seen, now + 1e9)


def ignores_in_use(seen: snapshot.Observed, now: float) -> act.Action:
    """Deletes under a reader."""
    request = dataclasses.replace(seen.request, in_use="")
    return snapshot.decide(dataclasses.replace(seen, request=request), now)


def releases_with_an_open_note(seen: snapshot.Observed, now: float) -> act.Action:
    """Lets go while a create may have taken effect."""
    record = seen.record
    if seen.request.wish is Wish.ABSENT and record is not None and record.note_open:
        return act.Erase()
    return snapshot.decide(seen, now)


def deletes_undecided(seen: snapshot.Observed, now: float) -> act.Action:
    """Calls DeleteSnapshot before the decision is durable."""
    step = snapshot.decide(seen, now)
    if isinstance(step, act.Condemn) and seen.record is not None:
        return act.Delete(seen.record.handle, seen.record.secrets.delete)
    return step


def takes_gone_for_absent(seen: snapshot.Observed, now: float) -> act.Action:
    """Deletes what a vanished request leaves behind."""
    if seen.request.wish is Wish.GONE:
        request = dataclasses.replace(seen.request, wish=Wish.ABSENT)
        return snapshot.decide(dataclasses.replace(seen, request=request), now)
    return snapshot.decide(seen, now)


def drops_note_when_unsure(seen: snapshot.Observed, step: act.Action, outcome: object, now: float) -> Record:
    """Takes a lost reply for a refusal, as the incumbent does with INTERNAL."""
    record = snapshot.fold(seen, step, outcome, now)  # type: ignore[arg-type]
    if isinstance(outcome, Failed) and isinstance(step, act.Create) and not record.handle:
        return dataclasses.replace(record, note=None, note_open=False)
    return record


def drops_anothers_note(seen: snapshot.Observed, step: act.Action, outcome: object, now: float) -> Record:
    """A refusal closes a note that a process before this one wrote."""
    note = seen.record.note if seen.record else None
    if note is not None and seen.record is not None:
        mine = dataclasses.replace(note, writer=seen.writer, unsure=False)
        seen = dataclasses.replace(seen, record=dataclasses.replace(seen.record, note=mine))
    return snapshot.fold(seen, step, outcome, now)  # type: ignore[arg-type]


def stories(decide: Decide, fold: work.Fold) -> None:
    """Enough stories to catch every mutant; the right core passes them all."""
    for policy in DeletionPolicy:
        for strike in FAULTS:
            for at in range(10):
                live({at: strike}, policy=policy, decide=decide, fold=fold)
                live({at: strike, at + 1: "refused"}, policy=policy, change_after=at, decide=decide, fold=fold)
                live({at: strike, at + 2: "refused"}, policy=policy, change_after=at, decide=decide, fold=fold)
    live({}, not_ready=3, decide=decide, fold=fold)
    _in_use_story(decide)
    _gone_story(decide)


def _in_use_story(decide: Decide) -> None:
    world = World(decide=decide)
    world.settle()
    world.want(wish=Wish.ABSENT, in_use="claim web/data restores from it")
    last = world.settle(turns=30)
    if not (isinstance(last, act.Wait) and last.reason == "in use" and world.plugin.handles()):
        raise Breach("deleted under a reader")
    world.want(in_use="")
    world.settle()
    if world.plugin.handles():
        raise Breach("not deleted once it was free")


def _gone_story(decide: Decide) -> None:
    world = World(decide=decide)
    world.settle()
    world.want(wish=Wish.GONE)
    world.settle(turns=30)
    if not world.plugin.handles():
        raise Breach("a vanished request deleted data")


DECIDE_MUTANTS = [
    no_intent_note,
    no_hold,
    forgets_retain,
    skips_back_off,
    ignores_in_use,
    releases_with_an_open_note,
    deletes_undecided,
    takes_gone_for_absent,
]
FOLD_MUTANTS = [drops_note_when_unsure, drops_anothers_note]


def test_the_right_core_passes_every_story() -> None:
    stories(snapshot.decide, snapshot.fold)


@pytest.mark.parametrize("mutant", DECIDE_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_core_that_decides_wrongly_is_caught(mutant: Decide) -> None:
    with pytest.raises((Breach, AssertionError)):
        stories(mutant, snapshot.fold)


@pytest.mark.parametrize("mutant", FOLD_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_core_that_folds_wrongly_is_caught(mutant: work.Fold) -> None:
    with pytest.raises(Breach):
        stories(snapshot.decide, mutant)


def test_impossible_records_are_refused() -> None:
    with pytest.raises(ValueError, match="open note"):
        Record("d", HandleSource("h"), "n", DeletionPolicy.DELETE, note_open=True)
    with pytest.raises(ValueError, match="handle"):
        Record("d", HandleSource("h"), "n", DeletionPolicy.DELETE, ready=True)
    assert Note("n", "v").writer == ""
