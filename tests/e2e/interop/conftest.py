"""One stack per file, at work on a control plane that the files share.

Its tests run at the same time but for those marked `alone`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import pytest

from tests.support import calls, claims, mirror, overlap, refusals, stacks
from tests.support import stage as stages
from tests.support.bed import access, build, controlplane
from tests.support.bed.fixtures import required


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """A control plane with the snapshot kinds, and what it holds."""

    admin: access.Access
    seen: mirror.Mirror
    backstage: mirror.Backstage


_NO_HOLDS = "--disable-admission-plugins=StorageObjectInUseProtection"
"""Nobody would take these off: claims are bound by hand here, as a controller manager takes 50 ms for each write."""
_SCENARIOS = ("binding", "creating", "defaulting", "deleting", "driven", "flagged", "grouping", "refused", "troubled")
pytest.register_assert_rewrite(*(f"tests.e2e.interop.{name}" for name in _SCENARIOS))
_overlaps: dict[int, overlap.Overlap] = {}


@pytest.fixture(scope="session")
def interop_cluster() -> Iterator[Cluster]:
    """A control plane of these tests' own: upstream's controller would act on every other test's objects too."""
    with contextlib.ExitStack() as stack:
        with required():
            for name in ("snapshot-controller", "csi-snapshotter"):
                build.binary(name)
            plane = stack.enter_context(controlplane.running(with_controllers=False, apiserver_flags=[_NO_HOLDS]))
        claims.install(plane.admin, "nobody.interop.test", name="nobody")
        admin = stack.enter_context(contextlib.closing(calls.Calls(plane.admin)))
        refusals.install(admin)
        backstage = stack.enter_context(mirror.Backstage())
        yield Cluster(plane.admin, stack.enter_context(mirror.following(backstage, plane.admin)), backstage)


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, interop_cluster: Cluster) -> Iterator[stages.Stage]:
    """The file's stack at work. When its tests are over, nothing may be left: no object, no hold, no snapshot."""
    kind: stacks.Kind = request.module.KIND
    cluster = interop_cluster
    with stages.standing(kind, cluster.admin, cluster.seen, cluster.backstage) as made:
        made.stack.start()
        running = _overlaps[id(made)] = overlap.Overlap(made, forgiving=not (kind.ours_decides and kind.ours_calls))
        try:
            yield made
        finally:
            running.close()
            del _overlaps[id(made)]
        if running.repeated:
            by_force(made)
        else:
            nothing_is_left(made)


def by_force(stage: stages.Stage) -> None:
    """Take away what a test that was run again has left."""
    stage.proxy.clear()
    for one in stage.seen.all("volumesnapshots"):
        if one["metadata"]["namespace"] == stage.namespace:
            stage.delete("snapshots", one["metadata"]["name"])
    for one in stage.seen.all("volumesnapshotcontents"):
        if one["spec"]["driver"] == stage.driver_name:
            with contextlib.suppress(AssertionError, calls.RefusedError):
                stage.strip_content(one["metadata"]["name"])


def nothing_is_left(stage: stages.Stage) -> None:
    """Delete what the tests left on purpose, and see that it goes."""
    stage.proxy.clear()
    mine = [one for one in stage.seen.all("volumesnapshots") if one["metadata"]["namespace"] == stage.namespace]
    for one in mine:
        stage.delete("snapshots", one["metadata"]["name"])
    for one in mine:
        stage.until_gone("snapshots", one["metadata"]["name"])
    none_left(stage, "volumesnapshotcontents", lambda one: one["spec"]["driver"] == stage.driver_name)
    none_left(stage, "persistentvolumeclaims", lambda one: stages.CLAIM in stages.finalizers(one))
    assert stage.backend() == []


def none_left(stage: stages.Stage, kind: str, mine: Callable[[stages.Object], bool]) -> None:
    """Wait until no object of a kind is like that: each kind is heard of by a watch of its own."""

    def left() -> list[str]:
        return [one["metadata"]["name"] for one in stage.seen.all(kind) if mine(one)]

    try:
        stage.until(f"no {kind} are left", lambda: not left())
    except AssertionError as error:
        raise AssertionError(f"{error}: {left()}") from None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    running = _overlaps.get(id(pyfuncitem.funcargs.get("stage")))
    if running is None:
        return None
    if pyfuncitem.get_closest_marker(overlap.ALONE) is not None:
        running.alone(pyfuncitem)
    else:
        running.result(pyfuncitem)
    return True
