"""The test bed's readings: request counts from an API server's metrics, and versions from go.mod."""

from __future__ import annotations

import re

import pytest

from tests.support.bed import build, ports, process, requests

METRICS = """\
# TYPE apiserver_request_total counter
apiserver_request_total{code="201",component="apiserver",dry_run="",group="g",resource="vs",scope="resource",\
subresource="",verb="POST",version="v1"} 4
apiserver_request_total{code="200",component="apiserver",dry_run="",group="g",resource="vs",scope="resource",\
subresource="status",verb="PATCH",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="All",group="g",resource="vs",scope="resource",\
subresource="status",verb="PATCH",version="v1"} 1e+00
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",\
subresource="",verb="LIST",version="v1"} 9
apiserver_request_duration_seconds_count{verb="POST"} 77
"""


def test_requests_are_read_added_up_and_selected() -> None:
    counts = requests.parse(METRICS)
    assert counts[requests.Request("POST", "vs", "", 201)] == 4
    assert counts[requests.Request("PATCH", "vs", "status", 200)] == 4
    assert counts.total(requests.WRITES) == 8
    assert counts.total(requests.WRITES, {"vs"}, {"status"}) == 4
    assert counts.total(requests.READS) == 9
    assert counts.total() == 17


def test_a_difference_holds_only_what_came_between() -> None:
    before, after = requests.parse(METRICS), requests.parse(METRICS)
    after[requests.Request("DELETE", "vs", "", 200)] += 2
    assert dict(after - before) == {requests.Request("DELETE", "vs", "", 200): 2}


def test_every_program_has_a_pinned_version() -> None:
    for name in build.PROGRAMS:
        assert re.fullmatch(r"v\d+\.\d+\.\d+", build.version(name)), name


def test_an_unknown_program_is_refused_with_the_choices() -> None:
    with pytest.raises(process.MissingServerError, match="no server is called 'kubeapi'; choose from etcd"):
        build.binary("kubeapi")


def test_ports_are_never_given_twice() -> None:
    given = [ports.free() for _ in range(50)]
    assert len(set(given)) == 50
