"""Exit codes are an interface: one test for each row of the table in docs/cli.md."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from bridge.api.settings import ApiSettings
from bridge.cli import exits
from bridge.cli.main import main
from bridge.model import failure
from tests.support.api import running
from tests.support.bed import ports
from tests.support.desk import MemoryDesk, error_of, refused

DOCUMENT = pathlib.Path(__file__).parents[3] / "docs" / "cli.md"


def test_0_done(run):
    result = run("snapshot", "create", "db", "nightly", "--wait")
    assert (result.code, result.out) == (0, "snapshot east/default/nightly ready\n")


def test_1_failed(run, server):
    server.desk.failure = refused("RESOURCE_EXHAUSTED", "the pool is full")
    result = run("snapshot", "create", "db", "nightly", "--wait")
    assert result.code == 1
    assert "create failed: the pool is full (RESOURCE_EXHAUSTED)\n  free some space\n" in result.err
    assert result.out == ""


def test_1_nobody_answers(capsys):
    port = ports.free()
    assert main(["--addr", f"http://127.0.0.1:{port}", "snapshot", "list"]) == 1
    error = capsys.readouterr().err
    assert f"no service answers at http://127.0.0.1:{port}" in error
    assert "snapbridge serve" in error
    assert "SNAPBRIDGE_ADDR" in error


def test_1_no_socket_there(capsys, tmp_path):
    assert main(["--addr", f"unix:{tmp_path}/none.sock", "snapshot", "list"]) == 1
    assert "none.sock" in capsys.readouterr().err


def test_1_unavailable_and_defects(run, server):
    server.desk.broken = error_of(failure.UnavailableError)
    assert run("snapshot", "list").code == 1
    server.desk.broken = RuntimeError("hunter2")
    result = run("snapshot", "list")
    assert result.code == 1
    assert "request " in result.err
    assert "hunter2" not in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("nope",),
        ("snapshot", "nope"),
        ("snapshot", "create"),
        ("snapshot", "create", "db", "a", "extra"),
        ("snapshot", "create", "db", "a" * 1000),
        ("snapshot", "create", "db", "a", "--wait=soon"),
        ("snapshot", "create", "db", "a", "-l", "novalue"),
        ("snapshot", "create", "db", "a", "-l", "k=1", "-l", "k=2"),
        ("snapshot", "create", "--adopt", "snap-1", "name"),
        ("snapshot", "create", "db", "a", "--secret", "mount=env:X"),
        ("snapshot", "create", "db", "a", "--secret", "create=hunter2"),
        ("snapshot", "restore", "old", "--as", "new", "--size", "big"),
        ("snapshot", "list", "-o", "xml"),
        ("--addr", "ftp://x", "snapshot", "list"),
        ("--token-file", "/nowhere/token", "snapshot", "list"),
        ("--cert-file", "/nowhere/cert", "snapshot", "list"),
        ("node",),
    ],
)
def test_2_usage(run, server, words):
    server.desk.add("old")
    result = run(*words)
    assert result.code == 2
    assert result.err
    assert "hunter2" not in result.err
    assert server.desk.drafts == []


def test_2_config(capsys, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("apii: {}\n")
    assert main(["check-config", str(path)]) == 2
    assert "bad.yaml" in capsys.readouterr().err


def test_3_partial(run, server):
    server.desk.add("old")
    server.desk.add("busy")
    server.desk.busy["busy"] = "a restore reads it"
    result = run("snapshot", "delete", "old", "busy", "missing")
    assert result.code == 3
    assert result.out == "snapshot east/default/old deleted\n"
    assert "east/default/busy: a restore reads it" in result.err
    assert "missing" in result.err
    assert server.desk.view("busy") is not None


def test_4_not_found(run):
    assert run("snapshot", "describe", "nobody").code == 4
    assert run("snapshot", "delete", "nobody", "nobody-else").code == 4
    assert run("snapshot", "create", "no-such-volume", "a").code == 4
    assert run("op", "watch", "op-9").code == 4


def test_5_conflict(run, server):
    server.desk.add("taken")
    assert run("snapshot", "create", "db", "taken").code == 5
    server.desk.add("raw", ready=False)
    assert run("snapshot", "restore", "raw", "--as", "new").code == 5


def test_6_not_allowed(capsys, tmp_path):
    token = tmp_path / "token"
    token.write_text("wrong-but-long-enough\n")
    known = tmp_path / "known"
    known.write_text("correct-horse-battery\n")
    with running(settings=ApiSettings(port=0, token_file=str(known), shutdown_seconds=1)) as server:
        assert main(["--addr", server.url, "snapshot", "list"]) == 6
        assert "SNAPBRIDGE_TOKEN_FILE" in capsys.readouterr().err
        assert main(["--addr", server.url, "--token-file", str(token), "snapshot", "list"]) == 6
        assert "wrong-but" not in capsys.readouterr().err
        assert main(["--addr", server.url, "snapshot", "list", "--token-file", str(known)]) == 0
        server.desk.broken = error_of(failure.DeniedError)
        assert main(["--addr", server.url, "--token-file", str(known), "snapshot", "list"]) == 6


def test_7_the_waiting_is_over_and_the_operation_goes_on(capsys):
    with running(MemoryDesk(by_hand=True)) as server:
        assert main(["--addr", server.url, "snapshot", "create", "db", "slow", "--wait=100ms"]) == 7
        captured = capsys.readouterr()
        assert "snapbridge op watch op-" in captured.err
        assert captured.out == ""
        assert server.desk.view("slow") is not None


def test_11_locked(run, server):
    server.desk.broken = error_of(failure.ConflictError, "LOCKED")
    assert run("snapshot", "list").code == 11


def test_130_interrupted_waiting_leaves_the_operation_alone():
    desk = MemoryDesk(by_hand=True)
    with running(desk) as server:
        command = [sys.executable, "-m", "bridge", "snapshot", "create", "db", "slow", "--wait"]
        environ = {**os.environ, "SNAPBRIDGE_ADDR": server.url}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while "wait_operation" not in desk.calls:
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the operation goes on: snapbridge op watch op-" in err
    assert "Traceback" not in err
    assert out == ""
    assert "delete_snapshot" not in desk.calls


def test_the_table_in_the_documents_has_the_same_codes():
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)}
    named = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert rows == named
    tested = {int(number) for name in globals() for number in re.findall(r"^test_(\d+)_", name)}
    assert tested == named


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 0], 0), ([0, 4], 3), ([4, 4], 4), ([4, 5], 1), ([5], 5)],
)
def test_the_code_of_many(codes, code):
    assert exits.of_many(codes) == code


def test_a_status_that_nobody_thought_of_is_a_failure():
    assert exits.of_status(418) == 1


def test_json_never_stands_beside_an_error_on_standard_output(run, server):
    server.desk.failure = refused("INTERNAL", "it broke")
    result = run("snapshot", "create", "db", "a", "--wait", "-o", "json")
    assert (result.code, result.out) == (1, "")
    result = run("snapshot", "create", "db", "b", "--json")
    assert json.loads(result.out)["snapshot"]["name"] == "b"


@pytest.mark.parametrize("token", ["first-token-hunter2\nsecond-token-hunter2", "hunter2\u2014hunter2"])
def test_a_token_that_http_cannot_carry_is_refused_and_not_shown(run, monkeypatch, token):
    monkeypatch.setenv("SNAPBRIDGE_TOKEN", token)
    result = run("snapshot", "list")
    assert result.code == exits.USAGE
    assert "one token" in result.err
    assert "hunter2" not in result.err + result.out


def test_a_repeat_of_what_has_failed_is_no_success(run, server):
    server.desk.failure = refused("RESOURCE_EXHAUSTED", "the pool is full")
    words = ("snapshot", "create", "db", "nightly", "--idempotency-key", "k-1")
    assert run(*words, "--wait").code == exits.FAILED
    result = run(*words)
    assert (result.code, result.out) == (exits.FAILED, "")
    assert "the pool is full" in result.err


@pytest.mark.parametrize("key", ["a\nb", "k\u2014"])
def test_a_key_that_http_cannot_carry_is_refused(run, server, key):
    result = run("snapshot", "create", "db", "nightly", "--idempotency-key", key)
    assert (result.code, server.desk.drafts) == (exits.USAGE, [])
    assert "the idempotency key is not plain ASCII" in result.err


def test_a_terminal_that_cannot_show_a_text_makes_no_failure_of_it(server):
    environ = {**os.environ, "SNAPBRIDGE_ADDR": server.url, "PYTHONIOENCODING": "latin-1"}
    words = ["snapshot", "create", "db", "nightly", "--why", "f\u00fcr \u2192 alles", "-o", "json"]
    ended = subprocess.run(
        [sys.executable, "-m", "bridge", *words], env=environ, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout.decode("latin-1"))["snapshot"]["why"] == "f\u00fcr \u2192 alles"


def test_a_snapshot_that_is_named_in_two_ways_is_deleted_once(run):
    assert run("snapshot", "create", "db", "nightly", "--wait").code == exits.DONE
    result = run("snapshot", "delete", "nightly", "east/default/nightly", "--yes")
    assert (result.code, result.out) == (exits.DONE, "snapshot east/default/nightly deleted\n")
