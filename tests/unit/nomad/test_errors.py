"""The table of Nomad's error texts, held to every recorded error answer."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from adapters.nomad import errors
from bridge.model.failure import ConflictError, DeniedError, FailureKind, NotFoundError, UnavailableError
from bridge.model.plugin import Capability

RECORDINGS = pathlib.Path(__file__).parents[2] / "contract" / "recordings" / "nomad-2.0.6-dev"
REFUSED, UNSURE = FailureKind.REFUSED, FailureKind.UNSURE


def recorded() -> list[tuple[str, str, int, str]]:
    """(file, name, status, text) of every recorded error answer."""
    rows = []
    for path in sorted(RECORDINGS.glob("*.json")):
        for case in json.loads(path.read_text()):
            status = case["response"].get("status")
            if isinstance(status, int) and status >= 400:
                body: Any = case["response"].get("body")
                text = body if isinstance(body, str) else ("" if body is None else json.dumps(body))
                rows.append((path.name, case["name"], status, text))
    return rows


CASES = recorded()


def test_there_are_recordings() -> None:
    assert len(CASES) > 150


@pytest.mark.parametrize(("file", "name", "status", "text"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_every_recorded_error_is_known(file: str, name: str, status: int, text: str) -> None:
    """No recorded error falls through to the default row."""
    failure = errors.classify(status, text)
    known = errors.find(status, text) is not None or status in errors.BY_STATUS or "rpc error: code = " in text
    assert known, f"{file}: {name}: {text!r} falls through"
    assert failure.message
    assert failure.code not in ("", "UNKNOWN")


@pytest.mark.parametrize("row", errors.TABLE, ids=[row.pattern.pattern for row in errors.TABLE])
def test_every_row_names_its_source(row: errors.Row) -> None:
    """A row that cites a recording matches that recording, and is the row that is taken for it."""
    match = re.match(r"(\w+\.json): (.+)$", row.source)
    if match is None:
        assert row.source.startswith(("nomad.md ", "nomad-verified.md ", "nomad/"))
        return
    texts = [(status, text) for file, name, status, text in CASES if (file, name) == (match[1], match[2])]
    assert texts, f"no recording {row.source!r}"
    assert any(errors.find(status, text) is row for status, text in texts)


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        ("InvalidArgument", REFUSED, "INVALID_ARGUMENT"),
        ("NotFound", REFUSED, "NOT_FOUND"),
        ("AlreadyExists", REFUSED, "ALREADY_EXISTS"),
        ("PermissionDenied", REFUSED, "PERMISSION_DENIED"),
        ("Unauthenticated", REFUSED, "UNAUTHENTICATED"),
        ("Unimplemented", REFUSED, "UNIMPLEMENTED"),
        ("FailedPrecondition", REFUSED, "FAILED_PRECONDITION"),
        ("OutOfRange", REFUSED, "OUT_OF_RANGE"),
        ("Internal", UNSURE, "INTERNAL"),
        ("Unknown", UNSURE, "UNKNOWN"),
        ("Aborted", UNSURE, "ABORTED"),
        ("ResourceExhausted", UNSURE, "RESOURCE_EXHAUSTED"),
        ("Unavailable", UNSURE, "UNAVAILABLE"),
        ("DeadlineExceeded", UNSURE, "DEADLINE_EXCEEDED"),
        ("Canceled", UNSURE, "CANCELLED"),
        ("DataLoss", UNSURE, "DATA_LOSS"),
        ("NewFangled", UNSURE, "UNKNOWN"),
    ],
)
def test_a_plugins_own_code_decides(code: str, kind: FailureKind, name: str) -> None:
    """Nomad's words around it do not: they say "in use" and "not found" too."""
    text = f'could not: volume "x" is in use, volume not found: rpc error: code = {code} desc = volume in use'
    failure = errors.classify(500, text)
    assert (failure.kind, failure.code) == (kind, name)


def test_an_unknown_text_is_unsure() -> None:
    failure = errors.classify(500, "something nobody has seen")
    assert (failure.kind, failure.code) == (UNSURE, "UNKNOWN")
    assert errors.classify(502, "").kind is UNSURE


def test_a_plugin_that_is_down_is_not_one_that_cannot() -> None:
    text = '1 error occurred:\n\t* plugin "slow" does not support snapshot\n\n'
    assert errors.classify(500, text).kind is UNSURE
    assert errors.doubted(text) is Capability.CREATE_DELETE_SNAPSHOT
    assert errors.doubted("plugin does not support listing snapshots") is Capability.LIST_SNAPSHOTS
    assert errors.doubted("no such plugin") is None


def test_a_volume_delete_that_says_in_use_may_have_been_done() -> None:
    """Nomad asks the plugin first (A6); a driver's own FailedPrecondition comes before anything was done."""
    assert errors.classify_delete_volume(500, "volume in use: e1").kind is UNSURE
    assert errors.classify(500, "volume in use: e1").kind is REFUSED
    text = 'volume "v" is in use: rpc error: code = FailedPrecondition desc = volume busy'
    assert errors.classify_delete_volume(500, text).kind is REFUSED


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (404, "volume not found", NotFoundError),
        (403, "Permission denied", DeniedError),
        (500, "volume in use: a", ConflictError),
        (500, "boom", UnavailableError),
        (500, "rpc error: code = DeadlineExceeded desc = late", UnavailableError),
    ],
)
def test_raised_errors(status: int, text: str, kind: type[Exception]) -> None:
    error = errors.as_error(errors.AnswerError(status, text), "do it")
    assert type(error) is kind
    assert str(error).startswith("could not do it: ")


def test_a_long_text_is_cut() -> None:
    assert len(errors.classify(500, "x" * 100_000).message) < 1000
