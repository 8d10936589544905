"""Counts of the requests that an API server has answered, read from its own metrics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container
from typing import NamedTuple

WRITES = frozenset({"POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"})
READS = frozenset({"GET", "LIST"})
WATCHES = frozenset({"WATCH"})
_SAMPLE = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Request(NamedTuple):
    """One row of `apiserver_request_total`, with the labels that a budget asks for."""

    verb: str
    resource: str
    subresource: str
    code: int


class Requests(Counter[Request]):
    """Request -> how often. `after - before` gives what came between two readings."""

    def total(
        self,
        verbs: Container[str] | None = None,
        resources: Container[str] | None = None,
        subresources: Container[str] | None = None,
    ) -> int:
        """The sum over the rows whose labels are in the given sets; None takes all."""
        return sum(
            count
            for row, count in self.items()
            if (verbs is None or row.verb in verbs)
            and (resources is None or row.resource in resources)
            and (subresources is None or row.subresource in subresources)
        )

    def __sub__(self, other: Counter[Request]) -> Requests:
        return Requests({row: count - other[row] for row, count in self.items() if count > other[row]})


def parse(metrics: str) -> Requests:
    """Read `apiserver_request_total` from the text of /metrics; rows that differ elsewhere are added up."""
    found = Requests()
    for labels_text, value in _SAMPLE.findall(metrics):
        labels = dict(_LABEL.findall(labels_text))
        row = Request(labels["verb"], labels["resource"], labels["subresource"], int(labels["code"] or 0))
        found[row] += int(float(value))
    return found
