"""pytest fixtures for the test bed. `tests/conftest.py` makes them known to every test.

A server that cannot be had is an error with its remedy, never a skip.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

import pytest

from tests.support.bed import access, build, controlplane, node, packages, process

_CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
PROGRAMS = {
    "control_plane": _CONTROL_PLANE,
    "own_control_plane": _CONTROL_PLANE,
    "namespace": _CONTROL_PLANE,
    "node": (*_CONTROL_PLANE, "kubelet"),
    "csi_sanity": ("csi-sanity",),
    "upstream_pair": ("snapshot-controller", "csi-snapshotter"),
    "interop_cluster": (*_CONTROL_PLANE, "snapshot-controller", "csi-snapshotter"),
}
"""Fixture -> the programs it needs: they are built before the first test starts."""

_numbers = itertools.count(1)


@contextlib.contextmanager
def required() -> Iterator[None]:
    """Turn a missing or broken server into a failure that shows its text and no traceback."""
    try:
        yield
        return
    except (process.MissingServerError, process.ServerError) as error:
        words = str(error)
    pytest.fail(words, pytrace=False)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[controlplane.ControlPlane]:
    """A control plane for the whole run. A test that breaks it must mend it before it ends."""
    with contextlib.ExitStack() as stack:
        with required():
            plane = stack.enter_context(controlplane.running())
        yield plane


@pytest.fixture
def own_control_plane() -> Iterator[controlplane.ControlPlane]:
    """A control plane for one test alone, for outages and for exact counts. About 4 s."""
    with contextlib.ExitStack() as stack:
        with required():
            plane = stack.enter_context(controlplane.running())
        yield plane


@pytest.fixture
def namespace(control_plane: controlplane.ControlPlane) -> Iterator[str]:
    """A namespace of the test's own in the shared control plane, deleted afterwards (without waiting)."""
    name = f"t{os.getpid()}-{next(_numbers)}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session", name="node")
def node_fixture(control_plane: controlplane.ControlPlane) -> Iterator[node.Node]:
    """A real node of the shared control plane, for the whole run; its tests are marked `root`."""
    with contextlib.ExitStack() as stack:
        with required():
            packages.install()
            handle = stack.enter_context(node.running(control_plane))
        yield handle


@pytest.fixture(scope="session")
def csi_sanity() -> None:
    """Makes sure that csi-sanity is built; the test then calls `sanity.run`."""
    with required():
        build.binary("csi-sanity")


@pytest.fixture(scope="session")
def upstream_pair() -> None:
    """Makes sure that the incumbent is built; the test then calls `incumbent.running`."""
    with required():
        for name in PROGRAMS["upstream_pair"]:
            build.binary(name)


def programs_for(fixture_names: set[str]) -> list[str]:
    """The programs that tests with these fixtures need, in the order of building."""
    needed = {name for fixture in fixture_names for name in PROGRAMS.get(fixture, ())}
    if needed & set(_CONTROL_PLANE):
        needed |= {name for name in build.wanted() if name == access.KUBECTL}
    return [name for name in build.PROGRAMS if name in needed]
