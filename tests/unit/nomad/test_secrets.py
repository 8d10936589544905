"""References to Nomad variables: what is not a variable's path never reaches the cluster."""

from __future__ import annotations

import pytest

from adapters.nomad.client import Client
from adapters.nomad.secrets import NomadSecrets
from adapters.nomad.settings import Settings
from bridge.model.failure import InvalidError
from bridge.model.secret import SecretRef


@pytest.mark.parametrize(
    "locator", ["default", "/path", "default/", "default/../jobs", "default/a?namespace=b", "default/a%2e", "d/a b"]
)
async def test_only_a_path_is_asked_for(locator: str) -> None:
    secrets = NomadSecrets(Client(Settings(address="http://127.0.0.1:1")))
    with pytest.raises(InvalidError) as caught:
        await secrets.resolve(SecretRef("nomadVar", locator))
    assert "nomadVar:NAMESPACE/PATH" in caught.value.hint
