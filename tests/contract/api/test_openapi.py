"""The OpenAPI page tells the truth: schemathesis calls every route by it, and every answer must fit it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bridge.api.application import endpoints
from bridge.api.openapi import page
from tests.support.api import running
from tests.support.desk import MemoryDesk

EXAMPLES = 25
PAGE = page(endpoints(), "0")
OPERATIONS = {found.ok().label: found.ok() for found in schemathesis.openapi.from_dict(PAGE).get_all_operations()}


@pytest.fixture(scope="module")
def url():
    desk = MemoryDesk()
    for number in range(3):
        desk.add(f"there-{number}")
    with running(desk) as server:
        yield server.url


def _cases():
    for label, operation in OPERATIONS.items():
        yield label, schemathesis.GenerationMode.POSITIVE
        found = PAGE["paths"][operation.path][operation.method]
        if found["parameters"] or "requestBody" in found:
            yield label, schemathesis.GenerationMode.NEGATIVE


def _excused(response) -> bool:
    """Whether the refusal is one that no schema can tell: a page token of ours, a reference that fits nothing."""
    return response.status_code == 422 and response.json()["field"] in ("next_token", "snapshot", "group")


@pytest.mark.parametrize(("label", "mode"), list(_cases()), ids=str)
def test_every_answer_fits_the_page(label, mode, url):
    seen: list[int] = []

    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: schemathesis.Case) -> None:
        response = case.call(base_url=url)
        excluded = [positive_data_acceptance] if _excused(response) else []
        case.validate_response(response, excluded_checks=excluded)
        seen.append(response.status_code)

    call()
    assert seen, "nothing was asked"
    assert not [status for status in seen if status >= 500]
    if mode is schemathesis.GenerationMode.NEGATIVE:
        assert 422 in seen or 400 in seen


def test_the_page_names_every_route_once_with_a_summary():
    ids = [operation["operationId"] for methods in PAGE["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) == len(endpoints()) == len(OPERATIONS)
    assert all(operation["summary"] for methods in PAGE["paths"].values() for operation in methods.values())
    assert PAGE["openapi"] == "3.1.0"


async def test_the_page_is_served(client):
    assert (await (await client.get("/v1/openapi.json")).json())["paths"] == PAGE["paths"]
