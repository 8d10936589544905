"""The doorkeeper of plugin calls: places, two ways to one volume, pauses after ABORTED, several at once."""

from __future__ import annotations

from bridge.model.failure import Failure, FailureKind
from bridge.model.keys import GROUP, SNAPSHOT, Key, snapshot_key
from bridge.model.outcome import Done, Failed
from bridge.model.plugin import PluginView, Route
from bridge.service.admission import Admission, Passage
from tests.support.memory import VirtualClock

ABORTED = Failed(Failure(FailureKind.UNSURE, "ABORTED", "pending"))
LOST = Failed(Failure(FailureKind.UNSURE, "UNAVAILABLE", "lost"))
REFUSED = Failed(Failure(FailureKind.REFUSED, "NOT_FOUND", "no"))


def passage(uid: str, *volumes: str, route: Route = Route.SOCKET, concurrency: int = 2, driver: str = "d") -> Passage:
    view = PluginView(driver, True, True, concurrency=concurrency, route=route)
    return Passage(snapshot_key("c", uid), view, route, volumes or (f"volume-{uid}",), 120.0)


def call(door: Admission, clock: VirtualClock, one: Passage, outcome: object) -> None:
    """A call that ends with this outcome; with none it is cut off."""
    assert door.hold(one, clock.now()) is None
    with door.inside(one, clock.now) as told:
        if outcome is not None:
            told(outcome)


def test_no_more_calls_at_once_than_the_plugin_takes_and_the_next_is_woken() -> None:
    door, clock, woken = Admission(), VirtualClock(), list[Key]()
    door.listen(woken.append, SNAPSHOT, GROUP)
    first, second, third = passage("1"), passage("2"), passage("3")
    with door.inside(first, clock.now) as told:
        with door.inside(second, clock.now):
            held = door.hold(third, clock.now())
            assert held is not None
            assert held.why == ""
            assert door.hold(passage("4", driver="another"), clock.now()) is None
        assert woken == [third.key]
        assert door.hold(third, clock.now()) is None
        told(Done(None))


def test_a_volume_is_never_called_two_ways_at_once() -> None:
    door, clock = Admission(), VirtualClock()
    by_socket, by_agent = passage("1", "v"), passage("2", "v", route=Route.NODE_AGENT)
    by_api = passage("3", "v", route=Route.ORCHESTRATOR)
    with door.inside(by_socket, clock.now) as told:
        held = door.hold(by_api, clock.now())
        assert held is not None
        assert held.reason == "ROUTE_BUSY"
        assert "'v'" in held.why
        assert door.hold(by_agent, clock.now()) is None, "both dial the plugin, which locks by itself"
        assert door.hold(passage("4", "w", route=Route.ORCHESTRATOR), clock.now()) is None
        told(Done(None))
    assert door.hold(by_api, clock.now()) is None


def test_an_unanswered_call_closes_the_other_way_until_its_deadline_has_passed() -> None:
    for outcome in (None, LOST):
        door, clock = Admission(), VirtualClock()
        by_socket, by_api = passage("1", "v"), passage("2", "v", route=Route.ORCHESTRATOR)
        call(door, clock, by_socket, outcome)
        held = door.hold(by_api, clock.now())
        assert held is not None
        assert held.seconds == 120.0
        assert door.hold(by_socket, clock.now()) is None, "the same way may ask again"
        clock.instant += 119.0
        assert door.hold(by_api, clock.now()) is not None
        clock.instant += 1.5
        assert door.hold(by_api, clock.now()) is None


def test_a_repeat_that_is_answered_ends_the_doubt() -> None:
    door, clock = Admission(), VirtualClock()
    by_socket, by_api = passage("1", "v"), passage("2", "v", route=Route.ORCHESTRATOR)
    call(door, clock, by_socket, LOST)
    call(door, clock, by_socket, Done(None))
    assert door.hold(by_api, clock.now()) is None


def test_a_refusal_leaves_no_doubt_and_takes_none_away() -> None:
    door, clock = Admission(), VirtualClock()
    by_api = passage("2", "v", route=Route.ORCHESTRATOR)
    call(door, clock, passage("1", "v"), REFUSED)
    assert door.hold(by_api, clock.now()) is None
    call(door, clock, passage("1", "v"), LOST)
    call(door, clock, passage("1", "v"), REFUSED)
    assert door.hold(by_api, clock.now()) is not None


def test_a_call_of_an_earlier_process_counts_too() -> None:
    door, clock = Admission(), VirtualClock()
    door.unsettled(passage("1", "v"), Route.SOCKET, clock.now(), 60.0)
    assert door.hold(passage("1", "v", route=Route.ORCHESTRATOR), clock.now()) is not None
    assert door.hold(passage("1", "v"), clock.now()) is None


def test_aborted_pauses_the_volume_ever_longer_and_no_other_volume() -> None:
    door, clock = Admission(), VirtualClock()
    seconds = []
    for _ in range(3):
        call(door, clock, passage("1", "v"), ABORTED)
        held = door.hold(passage("2", "v"), clock.now())
        assert held is not None
        assert held.reason == "ABORTED"
        seconds.append(held.seconds)
        assert door.hold(passage("3", "w"), clock.now()) is None
        clock.instant += held.seconds
    assert seconds == [1.0, 2.0, 4.0]
    call(door, clock, passage("1", "v"), Done(None))
    assert door.hold(passage("2", "v"), clock.now()) is None


def test_places_are_kept_free_for_several_at_once() -> None:
    door, clock, woken = Admission(), VirtualClock(), list[Key]()
    door.listen(woken.append, SNAPSHOT, GROUP)
    group = Key("c", "group", "g")
    members = [passage("a"), passage("b")]
    running, single = passage("1"), passage("2")
    with door.inside(running, clock.now) as told:
        assert door.hold_together(group, members, clock.now()) is not None
        assert door.hold(single, clock.now()) is not None, "the free place is kept for the group"
        told(Done(None))
    assert woken == [group]
    assert door.hold_together(group, members, clock.now()) is None
    with door.inside(members[0], clock.now) as first, door.inside(members[1], clock.now) as second:
        door.reserved(group)
        first(Done(None))
        second(Done(None))
    assert single.key in woken
    assert door.hold(single, clock.now()) is None


def test_a_reservation_that_nobody_takes_up_ends_by_itself() -> None:
    door, clock = Admission(), VirtualClock()
    with door.inside(passage("1"), clock.now) as told:
        assert door.hold_together(Key("c", "group", "g"), [passage("a"), passage("b")], clock.now()) is not None
        clock.instant += 31.0
        assert door.hold(passage("2"), clock.now()) is None
        told(Done(None))


def test_more_members_than_places_take_all_the_places_there_are() -> None:
    door, clock = Admission(), VirtualClock()
    members = [passage(f"m{n}", concurrency=2) for n in range(5)]
    assert door.hold_together(Key("c", "group", "g"), members, clock.now()) is None
