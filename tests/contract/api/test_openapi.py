"""The OpenAPI page tells the truth: schemathesis calls every route by it, and every answer must fit it."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from bridge.api.application import endpoints
from bridge.api.openapi import page
from tests.support.api import running
from tests.support.desk import MemoryDesk

EXAMPLES = 30
PAGE = page(endpoints(), "0")
OPERATIONS = {found.ok().label: found.ok() for found in schemathesis.openapi.from_dict(PAGE).get_all_operations()}


@pytest.fixture(scope="module")
def url():
    desk = MemoryDesk()
    for number in range(3):
        desk.add(f"there-{number}")
    with running(desk) as server:
        yield server.url


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", OPERATIONS)
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
        response = case.call_and_validate(base_url=url)
        seen.append(response.status_code)

    call()
    assert seen, "nothing was asked"
    assert not [status for status in seen if status >= 500]


def test_the_page_names_every_route_once_with_a_summary():
    ids = [operation["operationId"] for methods in PAGE["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) == len(endpoints()) == len(OPERATIONS)
    assert all(operation["summary"] for methods in PAGE["paths"].values() for operation in methods.values())
    assert PAGE["openapi"] == "3.1.0"


async def test_the_page_is_served(client):
    assert (await (await client.get("/v1/openapi.json")).json())["paths"] == PAGE["paths"]
