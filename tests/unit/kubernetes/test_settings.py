"""Settings: what is refused, with what words, and that reading them imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pydantic
import pytest

from adapters.kubernetes.settings import Settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"in_cluster": True, "kubeconfig": "x"}, "exclude each other"),
        ({"in_cluster": True, "context": "x"}, "exclude each other"),
        ({"drivers": [""]}, "no CSI driver name"),
        ({"drivers": ["a" * 64]}, "no CSI driver name"),
        ({"drivers": ["a", "a"]}, "named twice"),
        ({"kubeconfg": "x"}, "Extra inputs are not permitted"),
        ({"connections": 0}, "greater than or equal to 4"),
        ({"request_timeout_seconds": -1}, "greater than 0"),
        ({"in_cluster": "yes"}, "valid boolean"),
    ],
)
def test_a_wrong_setting_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        Settings(**given)


def test_settings_import_neither_the_client_library_nor_http() -> None:
    heavy = "[name for name in ('kubernetes', 'aiohttp') if name in sys.modules]"
    code = f"import sys, adapters.kubernetes.settings; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
