"""The list of acceptance cases names tests that there are."""

from __future__ import annotations

import re

from tests.support.bed import paths

_NAMED = re.compile(r"(?<![\w`])(?P<name>[0-9a-z]+(?:_[0-9a-z]+){3,})(?P<open>_…)?")
_DEFINED = re.compile(r"def test_(\w+)")


def test_every_test_that_the_list_names_exists() -> None:
    text = (paths.REPOSITORY / "docs" / "kubernetes" / "acceptance.md").read_text()
    files = (paths.REPOSITORY / "tests").rglob("*.py")
    known = {name for file in files for name in _DEFINED.findall(file.read_text())}
    named = [(match["name"], bool(match["open"])) for match in _NAMED.finditer(text)]
    assert len(named) > 80
    missing = [
        name
        for name, is_open in named
        if not (any(one.startswith(name) for one in known) if is_open else name in known)
    ]
    assert missing == []


def test_the_list_has_all_fifty_cases() -> None:
    text = (paths.REPOSITORY / "docs" / "kubernetes" / "acceptance.md").read_text()
    assert [int(number) for number in re.findall(r"^\| (\d+) ", text, re.MULTILINE)] == list(range(1, 51))
