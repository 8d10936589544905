"""Log lines: their shape, and what must never stand in one."""

from __future__ import annotations

import io
import json
import logging

import pytest

from bridge.app import logs
from bridge.model.keys import snapshot_key


@pytest.fixture
def root():
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def written(root):
    stream = io.StringIO()
    logs.set_up(format="json", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_the_fields_beside_the_message(written):
    log = logging.getLogger("bridge.service.runner")
    with logs.bound(key=snapshot_key("east", "u-1"), attempt=2):
        log.info("pass ended", extra={"action": "create", "seconds": 0.25, "names": ("a", "b")})
    log.info("after")
    first, second = written()
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "bridge.service.runner",
        "message": "pass ended",
        "key": "east/snapshot/u-1",
        "attempt": 2,
        "action": "create",
        "seconds": 0.25,
        "names": ["a", "b"],
    }
    assert "key" not in second


@pytest.mark.parametrize(
    "fields",
    [
        {"token": "hunter2"},
        {"create_secrets": {"user": "hunter2"}},
        {"request": {"name": "x", "secrets": {"password": "hunter2"}}},
        {"headers": ["Authorization: Bearer hunter2"]},
        {"text": "https://me:hunter2@example.org/x"},
        {"text": "eyJhbGciOiJSUzI1NiJ9.hunter2hunter2.hunter2"},
        {"text": "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----"},
    ],
)
@pytest.mark.parametrize("format", ["json", "text"])
def test_secrets_are_stripped(root, fields, format):
    stream = io.StringIO()
    logs.set_up(format=format, stream=stream)
    logging.getLogger("x").info("called", extra=fields)
    assert "hunter2" not in stream.getvalue()
    assert logs.STRIPPED in stream.getvalue()


def test_what_only_names_a_secret_stays(written):
    logging.getLogger("x").info("read", extra={"token_file": "/etc/tokens", "secret": "", "next_token_length": 3})
    assert written()[0]["token_file"] == "/etc/tokens"


def test_messages_and_tracebacks_are_stripped_too(written):
    try:
        raise ValueError("Bearer hunter2")
    except ValueError:
        logging.getLogger("x").exception("failed with Bearer %s", "hunter2")
    assert "hunter2" not in json.dumps(written())
    assert "ValueError" in written()[0]["error"]


def test_a_field_cannot_replace_the_message(written):
    logging.getLogger("x").info("real", extra={"level": "debug"})
    assert (written()[0]["level"], written()[0]["level_"]) == ("info", "debug")


def test_text_is_one_line_and_json_is_the_default_off_a_terminal(root):
    stream = io.StringIO()
    logs.set_up(format="text", stream=stream)
    logging.getLogger("x").warning("slow", extra={"reason": "two words", "seconds": 3})
    assert stream.getvalue().endswith('WARNING slow  reason="two words" seconds=3\n')
    stream = io.StringIO()
    logs.set_up(stream=stream)
    logging.getLogger("x").warning("slow")
    assert json.loads(stream.getvalue())["message"] == "slow"


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="verbose"):
        logs.set_up(level="verbose")


def test_nothing_in_a_text_line_commands_the_terminal_or_forges_a_line(root):
    stream = io.StringIO()
    logs.set_up(format="text", stream=stream)
    logging.getLogger("x").info("job %s\nforged", "a\x1b[2J", extra={"path": "/v1/\x1b]0;evil\x07\x9b"})
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith("job a\\x1b[2J\\nforged  path=/v1/\\x1b]0;evil\\x07\\x9b")
