"""What the commands print and do."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import yaml

from bridge.api.settings import ApiSettings
from bridge.cli.main import main
from bridge.model.snapshot import DeletionPolicy
from tests.support.api import running
from tests.support.bed import ports
from tests.support.certificates import Authority
from tests.support.desk import MemoryDesk

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


def test_create_without_wait_says_that_it_is_only_on_record(run, server):
    result = run(
        "snapshot", "create", "db", "nightly", "-n", "default", "--why", "upgrade", "-l", "app=shop",
        "--retain", "--parameter", "fast=true", "--secret", "create=env:CEPH",
    )  # fmt: skip
    assert result.out == "snapshot east/default/nightly requested\n"
    assert "not cut yet" in result.err
    draft = server.desk.drafts[0]
    assert draft.policy is DeletionPolicy.RETAIN
    assert (draft.why, dict(draft.labels), dict(draft.parameters)) == ("upgrade", {"app": "shop"}, {"fast": "true"})
    assert str(draft.secrets.create) == "env:CEPH"


def test_create_without_a_name_is_called_after_volume_and_time(run, server):
    assert run("snapshot", "create", "db").code == 0
    assert server.desk.drafts[0].name.startswith("db-20")


def test_adopting_a_handle(run, server):
    assert run("snapshot", "create", "taken-over", "--adopt", "snap-7", "--driver", "d").code == 0
    draft = server.desk.drafts[0]
    assert (draft.name, draft.volume, draft.adopt_handle, draft.driver) == ("taken-over", "", "snap-7", "d")


def test_the_same_idempotency_key_books_once(run, server):
    first = run("snapshot", "create", "db", "a", "--idempotency-key", "k", "--json")
    again = run("snapshot", "create", "db", "a", "--idempotency-key", "k", "--json")
    assert json.loads(first.out)["operation"]["id"] == json.loads(again.out)["operation"]["id"]
    assert len(server.desk.drafts) == 1


def test_wait_prints_one_line_per_change_off_a_terminal(run):
    result = run("snapshot", "create", "db", "a", "--wait")
    names = [line.rpartition(": ")[2] for line in result.err.splitlines()]
    assert names == ["cutting", "processing", "ready"]
    assert all("T" in line.split()[0] and line.split()[0].endswith("Z") for line in result.err.splitlines())


@pytest.mark.parametrize("words", [["--wait=5s"], ["--wait", "5s"], ["--wait"], ["--wait-for", "ready"]])
@pytest.mark.parametrize("place", ["before", "after"])
def test_wait_with_and_without_a_value(run, words, place):
    rest = ["db", "a"]
    result = run("snapshot", "create", *([*words, *rest] if place == "before" else [*rest, *words]))
    assert result.out == "snapshot east/default/a ready\n"


def test_wait_for_cut_does_not_wait_for_ready(capsys):
    desk = MemoryDesk(by_hand=True)
    with running(desk) as server:
        command = [sys.executable, "-m", "bridge", "snapshot", "create", "db", "a", "--wait-for", "cut"]
        environ = {**os.environ, "SNAPBRIDGE_ADDR": server.url}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for asked in (1, 2):
            _until(lambda asked=asked: desk.calls.count("wait_operation") >= asked or process.poll() is not None)
            server.call(desk.advance)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "snapshot east/default/a cut\n")


def test_a_service_that_restarts_meanwhile_is_waited_for():
    desk = MemoryDesk(by_hand=True)
    with running(desk, settings=ApiSettings(port=ports.free(), shutdown_seconds=1)) as server:
        url = server.url
        command = [sys.executable, "-m", "bridge", "snapshot", "create", "db", "a", "--wait"]
        environ = {**os.environ, "SNAPBRIDGE_ADDR": url}
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        _until(lambda: "wait_operation" in desk.calls)
    desk.calls.clear()
    port = int(url.rpartition(":")[2])
    with running(desk, settings=ApiSettings(port=port, shutdown_seconds=1)) as server:
        _until(lambda: "wait_operation" in desk.calls)
        for _ in range(3):
            server.call(desk.advance)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "snapshot east/default/a ready\n")


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "words", [("snapshot", "list"), ("get", "snapshots"), ("get", "snapshot"), ("snapshots", "list")]
)
def test_both_word_orders_list_the_same(run, server, words):
    server.desk.add("one")
    result = run(*words)
    title, row = result.out.splitlines()
    assert title.split() == ["ID", "CLUSTER", "NAMESPACE", "NAME", "VOLUME", "STATE", "READY", "SIZE", "AGE", "WHY"]
    assert row.split()[:8] == ["00000001", "east", "default", "one", "db", "ready", "true", "2Gi"]


def test_formats(run, server):
    server.desk.add("one")
    server.desk.add("raw", ready=False)
    as_json = json.loads(run("snapshot", "list", "-o", "json").out)
    assert as_json["kind"] == "SnapshotList"
    assert json.loads(run("snapshot", "list", "-json").out) == as_json
    assert yaml.safe_load(run("snapshot", "list", "-o", "yaml").out) == as_json
    assert run("snapshot", "list", "-o", "name").out == "east/default/raw\neast/default/one\n"
    wide = run("snapshot", "list", "-o", "wide").out
    assert "00000001-5eed" in wide
    assert "HANDLE" in wide
    assert "unknown" in run("snapshot", "list").out.splitlines()[1]


def test_names_are_accepted_where_references_are(run, server):
    server.desk.add("one")
    for ref in ("one", "default/one", "east/default/one", "00000001"):
        assert run("snapshot", "describe", ref, "-o", "name").out == "east/default/one\n"
    assert run("describe", "snapshot", "one").out.startswith("Name:             one\n")
    assert run("snapshot", "describe", "one", "-n", "elsewhere").code == 4
    assert run("get", "snapshot", "one", "-o", "name").out == "east/default/one\n"


def test_a_list_has_every_page(run, server):
    for number in range(1203):
        server.desk.add(f"s{number}")
    assert len(run("snapshot", "list", "-o", "name").out.splitlines()) == 1203
    assert len(run("snapshot", "list", "-o", "name", "--limit", "7").out.splitlines()) == 7


def test_an_empty_list_is_no_error(run):
    result = run("snapshot", "list")
    assert (result.code, result.out, result.err) == (0, "", "No snapshots found.\n")
    assert json.loads(run("snapshot", "list", "--json").out)["items"] == []


def test_delete_waits_until_it_is_gone(run, server):
    server.desk.add("old")
    result = run("snapshot", "delete", "old")
    assert (result.code, result.out) == (0, "snapshot east/default/old deleted\n")
    assert server.desk.view("old") is None
    assert run("snapshot", "delete", "old", "--ignore-not-found").code == 0


def test_delete_with_no_wait_says_so(run, server):
    server.desk.add("old")
    assert run("snapshot", "delete", "old", "--no-wait").out == "snapshot east/default/old deletion requested\n"


def test_the_start_of_a_uid_deletes_only_on_a_yes(run, server):
    view = server.desk.add("old")
    result = run("snapshot", "delete", view.key.uid[:8])
    assert result.code == 2
    assert server.desk.view("old") is not None
    assert run("snapshot", "delete", view.key.uid[:8], "--yes").code == 0
    assert server.desk.view("old") is None


def test_a_word_that_means_two_snapshots_deletes_neither(run, server):
    server.desk.add("other")
    server.desk.add("00000001")
    result = run("snapshot", "delete", "00000001", "--yes")
    assert result.code == 2
    assert "name of one snapshot and the start of the uid of another" in result.err
    assert server.desk.view("other") is not None
    assert server.desk.view("00000001") is not None


def test_restore(run, server):
    server.desk.add("good")
    result = run("snapshot", "restore", "good", "--as", "again", "--size", "3Gi", "--wait")
    assert result.out == "volume again restored from east/default/good\n"
    assert "again" in run("volume", "list", "-o", "name").out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("volume", "list"), "photos"),
        (("plugin", "list"), "the node agent node-2 is not connected"),
        (("node", "list"), "lost contact"),
        (("cluster", "list"), "standalone"),
        (("op", "list"), "create"),
        (("whoami",), "local"),
        (("version",), "server  0.1.0"),
    ],
)
def test_the_other_lists(run, words, text):
    run("snapshot", "create", "db", "a", "--wait")
    result = run(*words)
    assert result.code == 0
    assert text in result.out
    json.loads(run(*words, "--json").out)


def test_an_unknown_time_is_not_1970(run):
    assert "unknown" in run("node", "list").out
    assert "1970" not in run("node", "list", "-o", "yaml").out


def test_op_watch_and_describe(run):
    operation = json.loads(run("snapshot", "create", "db", "a", "--json").out)["operation"]
    assert run("op", "watch", operation["id"]).out.endswith("done\n")
    assert "cutting" in run("op", "describe", operation["id"]).out


def test_what_others_wrote_cannot_steer_the_terminal(run, server):
    server.desk.add("one", why="\x1b[2Jgone\u202e")
    for words in (("snapshot", "list"), ("snapshot", "describe", "one")):
        out = run(*words).out
        assert "gone" in out
        assert "\x1b" not in out
        assert "\u202e" not in out


def test_version_works_without_a_service(capsys):
    assert main(["--addr", "http://127.0.0.1:1", "version"]) == 0
    assert "server  unknown" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_completion_scripts(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "_SNAPBRIDGE_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ("snapshot describe n", ["nightly"]),
        ("snapshot delete east/", ["east/default/nightly", "east/default/other"]),
        ("get snapshot oth", ["other"]),
        ("snapshot create p", ["photos"]),
        ("snap", ["snapshot"]),
        ("snapshot list --state rea", ["ready"]),
    ],
)
def test_completion_proposes_what_there_is(server, words, proposed):
    server.desk.add("other")
    server.desk.add("nightly")
    assert sorted(_proposals(server.url, words)) == proposed


def test_completion_without_a_service_is_quiet():
    assert _proposals("http://127.0.0.1:1", "snapshot describe n") == []


def _proposals(url: str, words: str) -> list[str]:
    number = str(len(words.split()))
    environ = {
        **os.environ, "SNAPBRIDGE_ADDR": url, "_SNAPBRIDGE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"snapbridge {words}", "COMP_CWORD": number,
    }  # fmt: skip
    command = [sys.executable, "-m", "bridge"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_a_good_config_is_good(capsys):
    assert main(["check-config", str(CONFIGS / "standalone.yaml")]) == 0
    assert capsys.readouterr().out == "The config is good.\n"


def test_over_a_unix_socket(capsys, tmp_path):
    path = tmp_path / "api.sock"
    with running(settings=ApiSettings(host="", unix_socket=str(path), shutdown_seconds=1)):
        assert main(["--addr", f"unix:{path}", "whoami", "-o", "name"]) == 0
        assert capsys.readouterr().out == "local\n"


def test_over_tls_with_a_client_certificate(capsys, tmp_path):
    authority = Authority(tmp_path)
    own, alice = authority.issue("127.0.0.1", server=True), authority.issue("alice")
    settings = ApiSettings(
        port=0, tls_cert_file=own.cert, tls_key_file=own.key, client_ca_file=authority.ca, shutdown_seconds=1
    )
    with running(settings=settings) as server:
        words = ["--addr", server.url, "--ca-file", authority.ca]
        assert main([*words, "--cert-file", alice.cert, "--key-file", alice.key, "whoami", "-o", "name"]) == 0
        assert capsys.readouterr().out == "alice\n"
        assert main([*words, "whoami"]) == 6
        assert main(["--addr", server.url, "whoami"]) == 1
        assert "--ca-file" in capsys.readouterr().err


def test_a_token_is_not_sent_unencrypted_to_another_host(capsys, tmp_path):
    token = tmp_path / "token"
    token.write_text("alice correct-horse-battery\n")
    assert main(["--addr", "http://192.0.2.1:7717", "--token-file", str(token), "whoami"]) == 2
    error = capsys.readouterr().err
    assert "unencrypted" in error
    assert "correct-horse" not in error


def test_something_else_at_the_address_is_told(capsys):
    import http.server
    import threading

    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        assert main(["--addr", f"http://127.0.0.1:{other.server_port}", "whoami"]) == 1
        thread.join()
    assert "does not speak this API" in capsys.readouterr().err


def _in_a_terminal(server_url: str, *words: str, typed: bytes = b"", **environ: str) -> tuple[int, str]:
    """Run the command with a terminal of its own; what it showed."""
    leader, follower = pty.openpty()
    env = {**os.environ, "SNAPBRIDGE_ADDR": server_url, "TERM": "xterm", **environ}
    for name in ("NO_COLOR", "NOMAD_CLI_NO_COLOR"):
        if name not in environ:
            env.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", *words],
        env=env,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        close_fds=True,
    )
    os.close(follower)
    if typed:
        os.write(leader, typed)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:
        pass
    os.close(leader)
    return process.wait(60), shown.decode()


def test_a_terminal_asks_before_a_delete(server):
    server.desk.add("old")
    code, shown = _in_a_terminal(server.url, "snapshot", "delete", "old", typed=b"n\n")
    assert (code, "Delete this snapshot?" in shown) == (1, True)
    assert server.desk.view("old") is not None
    code, shown = _in_a_terminal(server.url, "snapshot", "delete", "old", typed=b"y\n")
    assert code == 0
    assert server.desk.view("old") is None


def test_a_terminal_sees_one_live_line_and_colours(server):
    code, shown = _in_a_terminal(server.url, "snapshot", "create", "db", "a", "--wait", PYTHONUTF8="1")
    assert code == 0
    last = shown.split("\r")[-3]
    assert "cutting ✓" in last
    assert "processing ✓" in last
    assert "ready" in last
    _, shown = _in_a_terminal(server.url, "snapshot", "list")
    assert "\x1b[32mready" in shown
    _, shown = _in_a_terminal(server.url, "snapshot", "list", NO_COLOR="1")
    assert "\x1b" not in shown
    _, shown = _in_a_terminal(server.url, "--no-color", "snapshot", "list")
    assert "\x1b" not in shown


def test_a_reader_that_has_seen_enough_is_no_traceback(server):
    for number in range(300):
        server.desk.add(f"s{number}")
    command = f"{sys.executable} -m bridge snapshot list -o wide | head -1"
    environ = {**os.environ, "SNAPBRIDGE_ADDR": server.url}
    done = subprocess.run(
        ["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("ID")
    assert done.stderr == ""
