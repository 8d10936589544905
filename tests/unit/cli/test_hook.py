"""`snapbridge hook snapshot` as a task runs it: what it asks for, how it waits, what it says when it cannot."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from bridge.cli import exits
from bridge.cli.main import main
from bridge.model.failure import DeniedError, Failure, FailureKind, UnavailableError
from bridge.model.snapshot import DeletionPolicy
from bridge.ports.identity import Caller
from tests.support.api import Running, running
from tests.support.bed import ports
from tests.support.desk import MemoryDesk

GOOD = "a.good.token"
CALLER = Caller(
    "nomad:east/default/web/g/before", frozenset({"east"}), frozenset({"default"}), frozenset({"db", "logs"})
)


@dataclasses.dataclass(slots=True)
class Identities:
    """An authenticator with one good token."""

    good: str = GOOD
    away: bool = False
    asked: int = 0

    async def check(self, bearer: str) -> Caller | None:
        self.asked += 1
        if self.away:
            raise UnavailableError("the cluster's public keys cannot be read")
        if bearer != self.good:
            raise DeniedError("the workload identity has expired", hint="read its file again")
        return CALLER


@dataclasses.dataclass(slots=True)
class Hooked:
    """The service, who it knows, and the task's own files."""

    server: Running
    identities: Identities
    token: pathlib.Path


@pytest.fixture
def hooked(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hooked]:
    token = tmp_path / "nomad_snapbridge.jwt"
    token.write_text(GOOD)
    environment = {
        "NOMAD_ALLOC_ID": "a1b2c3d4-0000-4000-8000-000000000000", "NOMAD_JOB_ID": "web", "NOMAD_GROUP_NAME": "g",
        "NOMAD_TASK_NAME": "before", "NOMAD_NAMESPACE": "default", "NOMAD_ALLOC_INDEX": "0",
        "NOMAD_SECRETS_DIR": str(tmp_path),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    identities = Identities()
    with running(MemoryDesk(), authenticators=[identities]) as server:
        monkeypatch.setenv("SNAPBRIDGE_ADDR", server.url)
        yield Hooked(server, identities, token)


def hook(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["hook", "snapshot", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_every_volume_of_the_group_is_snapshotted(hooked, capsys) -> None:
    code, out, err = hook(capsys)
    assert code == exits.DONE, err
    assert out.splitlines() == [
        "snapshot web-db-before-a1b2c3d4 of db is ready",
        "snapshot web-logs-before-a1b2c3d4 of logs is ready",
    ]
    drafts = hooked.server.desk.drafts
    assert [(draft.volume, draft.asked_by) for draft in drafts] == [("db", CALLER.name), ("logs", CALLER.name)]
    assert drafts[0].why == "before the start: task before of job web"


def test_the_long_name_is_the_same_command(hooked, capsys) -> None:
    assert main(["nomad", "hook", "snapshot", "db"]) == exits.DONE
    assert "web-db-before-a1b2c3d4" in capsys.readouterr().out


def test_a_restarted_task_finds_the_same_snapshot(hooked, capsys) -> None:
    assert hook(capsys, "db")[0] == exits.DONE
    assert hook(capsys, "db")[0] == exits.DONE
    assert len(hooked.server.desk.drafts) == 1


def test_another_allocation_asks_anew(hooked, capsys, monkeypatch) -> None:
    assert hook(capsys, "db")[0] == exits.DONE
    monkeypatch.setenv("NOMAD_ALLOC_ID", "ffffffff-0000-4000-8000-000000000000")
    assert hook(capsys, "db")[0] == exits.DONE
    assert len(hooked.server.desk.drafts) == 2


def test_the_final_one_is_another_snapshot_with_a_policy_of_its_own(hooked, capsys) -> None:
    assert hook(capsys, "db")[0] == exits.DONE
    words = ("db", "--final", "--deletion-policy", "Retain", "--wait-for", "cut", "--parameter", "fast=true")
    code, out, _ = hook(capsys, *words)
    assert code == exits.DONE
    assert "web-db-final-a1b2c3d4" in out
    draft = hooked.server.desk.drafts[1]
    assert (draft.policy, dict(draft.parameters)) == (DeletionPolicy.RETAIN, {"fast": "true"})


def test_a_volume_of_another_group_is_refused_before_anything_is_asked(hooked, capsys) -> None:
    code, _, err = hook(capsys, "db", "photos")
    assert code == exits.DENIED
    assert "group 'g' of job 'web' does not claim the volume 'photos'" in err
    assert "it claims db, logs" in err
    assert hooked.server.desk.drafts == []


def test_a_failed_snapshot_stops_the_deployment(hooked, capsys) -> None:
    hooked.server.desk.failure = Failure(FailureKind.REFUSED, "OUT_OF_RANGE", "the pool is full", "free some space")
    code, _, err = hook(capsys, "db", "--timeout", "2s")
    assert code == exits.FAILED
    assert "snapshot web-db-before-a1b2c3d4 of db failed: the pool is full (OUT_OF_RANGE)" in err
    assert "free some space" in err


def test_a_repeat_after_a_failure_gives_the_snapshot_a_second_chance(hooked, capsys) -> None:
    desk = hooked.server.desk
    desk.failure = Failure(FailureKind.REFUSED, "OUT_OF_RANGE", "the pool is full")
    assert hook(capsys, "db", "--timeout", "2s")[0] == exits.FAILED
    timer = threading.Timer(0.5, lambda: hooked.server.call(lambda: desk.make_ready("web-db-before-a1b2c3d4")))
    timer.start()
    try:
        assert hook(capsys, "db", "--timeout", "25s")[0] == exits.DONE
    finally:
        timer.join()
    assert len(desk.drafts) == 1


def test_best_effort_says_what_is_missing_and_goes_on(hooked, capsys) -> None:
    hooked.server.desk.failure = Failure(FailureKind.REFUSED, "OUT_OF_RANGE", "the pool is full")
    code, out, err = hook(capsys, "db", "--best-effort", "--timeout", "2s")
    assert (code, out) == (exits.DONE, "")
    assert "the pool is full" in err
    assert "there is no snapshot; the task goes on" in err


def test_time_is_up(capsys, hooked) -> None:
    hooked.server.desk.by_hand = True
    code, _, err = hook(capsys, "db", "--timeout", "1500ms")
    assert code == exits.TIMED_OUT
    assert "is pending after 1.5 s" in err
    assert "snapbridge op watch" in err


def test_no_identity_says_what_to_write(hooked, capsys) -> None:
    hooked.token.unlink()
    code, _, err = hook(capsys)
    assert code == exits.DENIED
    assert "this task has no identity for snapbridge" in err
    assert 'identity { name = "snapbridge"' in err


def test_a_token_that_another_task_of_the_group_left_is_taken(hooked, capsys, monkeypatch, tmp_path) -> None:
    shared = tmp_path / "alloc"
    shared.mkdir()
    monkeypatch.setenv("NOMAD_ALLOC_DIR", str(shared))
    hooked.token.rename(shared / "snapbridge.jwt")
    assert hook(capsys, "db", "--final")[0] == exits.DONE
    hooked.token.write_text("an.own.token")
    assert hook(capsys, "db", "--final")[0] == exits.DENIED, "its own counts first"


def test_a_denied_identity_keeps_the_services_words(hooked, capsys) -> None:
    hooked.token.write_text("an.old.token")
    code, _, err = hook(capsys)
    assert code == exits.DENIED
    assert "the workload identity has expired" in err


def test_a_renewed_token_is_read_again(hooked, capsys) -> None:
    desk = hooked.server.desk
    desk.by_hand = True

    def renew() -> None:
        hooked.identities.good = "a.newer.token"
        hooked.token.write_text("a.newer.token")
        for _ in range(3):
            desk.advance()

    def renew_meanwhile() -> None:
        _until(lambda: bool(desk.drafts))
        time.sleep(0.5)
        hooked.server.call(renew)

    timer = threading.Thread(target=renew_meanwhile)
    timer.start()
    try:
        code, _, err = hook(capsys, "db", "--timeout", "25s", "--wait-for", "cut")
    finally:
        timer.join()
    assert code == exits.DONE, err


def test_a_service_that_is_away_is_waited_for(hooked, capsys) -> None:
    hooked.identities.away = True

    def back() -> None:
        _until(lambda: hooked.identities.asked > 0)
        hooked.identities.away = False

    timer = threading.Thread(target=back)
    timer.start()
    try:
        code, _, err = hook(capsys, "db")
    finally:
        timer.join()
    assert code == exits.DONE, err
    assert "waiting: the cluster's public keys cannot be read" in err


def test_a_service_that_stays_away_ends_the_hook(capsys, hooked) -> None:
    port = ports.free()
    code, _, err = hook(capsys, "--addr", f"http://127.0.0.1:{port}", "--connect-timeout", "600ms")
    assert code == exits.FAILED
    assert "gave up after 0.6 s" in err


def test_outside_of_a_task(capsys, monkeypatch) -> None:
    monkeypatch.delenv("NOMAD_ALLOC_ID", raising=False)
    code, _, err = hook(capsys, "--best-effort")
    assert code == exits.USAGE
    assert "this is no Nomad task" in err
