"""Adapters' commands: their descriptions as click commands, their errors as exit codes, their names in the help."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click
import pytest

from adapters.catalog import COMMANDS, Catalog
from bridge.cli import commands, exits
from bridge.cli import main as cli
from bridge.ports.commands import Argument, Call, Command, Exit, Kind, Option, StopError

Seen = list[Call]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run one line of a command line that has this one more command."""

    def call(described: Command, *words: str) -> tuple[int, str, str]:
        known = dict(cli.root.commands)
        cli.root.add_command(commands.build(described))
        try:
            capsys.readouterr()
            code = cli.main(list(words))
        finally:
            cli.root.commands.clear()
            cli.root.commands.update(known)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def _probe(
    seen: Seen, *, options: Sequence[Option] = (), arguments: Sequence[Argument] = (), code: int = 0
) -> Command:
    def run(call: Call) -> int:
        seen.append(call)
        return code

    return Command("probe", "Probe it.\n\nAt length.", run, options=options, arguments=arguments)


def test_options_and_arguments_arrive_as_described(typed) -> None:
    seen: Seen = []
    options = (
        Option("wait_for", "What.", choices=("cut", "ready"), default="ready"),
        Option("timeout", "How long.", kind=Kind.DURATION, default=60.0, short="t"),
        Option("final", "The last.", kind=Kind.FLAG),
        Option("label", "More.", kind=Kind.PAIR, repeated=True),
        Option("count", "Many.", kind=Kind.NUMBER, default=1),
    )
    described = _probe(seen, options=options, arguments=(Argument("volumes", required=False, many=True),))
    assert typed(described, "probe", "a", "-t", "2m", "--final", "--label", "x=y", "b")[0] == 0
    assert seen[0].values == {
        "volumes": ("a", "b"), "wait_for": "ready", "timeout": 120.0, "final": True, "label": (("x", "y"),),
        "count": 1,
    }  # fmt: skip
    assert typed(described, "probe", "--wait-for", "never")[0] == exits.USAGE


def test_an_option_falls_back_to_its_variable(typed, monkeypatch) -> None:
    seen: Seen = []
    monkeypatch.setenv("PROBE_JOB", "web")
    assert typed(_probe(seen, options=(Option("job", "Which.", environment="PROBE_JOB"),)), "probe")[0] == 0
    assert seen[0].values["job"] == "web"


def test_a_group_shows_its_commands(typed) -> None:
    code, out, _ = typed(Command("outer", "All of it.", commands=(_probe([]),)), "outer", "--help")
    assert code == 0
    assert "All of it." in out
    assert "probe" in out
    assert "Probe it." in out


def test_the_help_has_the_shared_options(typed) -> None:
    out = typed(_probe([]), "probe", "--help")[1]
    assert all(flag in out for flag in ("--addr", "--token-file", "--ca-file", "--cert-file", "--key-file"))


def test_the_exit_code_is_the_commands_own(typed) -> None:
    assert typed(_probe([], code=Exit.PARTIAL), "probe")[0] == exits.PARTIAL


def test_a_stop_is_a_sentence_a_remedy_and_a_code(typed) -> None:
    def run(call: Call) -> int:
        raise StopError("it cannot be", hint="do this", code=Exit.CONFLICT)

    code, out, err = typed(Command("probe", "Probe.", run), "probe")
    assert (code, out, err) == (exits.CONFLICT, "", "Error: it cannot be\n  do this\n")


def test_the_service_is_reached_over_the_shared_options(typed, server) -> None:
    server.desk.add("one")

    def run(call: Call) -> int:
        with_default = call.connect(addr="http://127.0.0.1:1")
        call.terminal.say(",".join(item["name"] for item in with_default.items("/v1/snapshots", {})))
        return Exit.DONE

    described = Command("probe", "Probe.", run)
    assert typed(described, "probe", "--addr", server.url) == (0, "one\n", "")
    assert typed(described, "--addr", server.url, "probe") == (0, "one\n", "")
    code, _, err = typed(described, "probe")
    assert code == exits.FAILED
    assert "no service answers at http://127.0.0.1:1" in err


def test_a_problem_of_the_service_ends_with_its_code(typed, server) -> None:
    def run(call: Call) -> int:
        call.connect().get("/v1/snapshots/none")
        return Exit.DONE

    assert typed(Command("probe", "Probe.", run), "probe", "--addr", server.url)[0] == exits.NOT_FOUND


def test_an_operation_is_followed_to_its_end(typed, server) -> None:
    def run(call: Call) -> int:
        service = call.connect()
        body = {"cluster": "east", "namespace": "default", "volume": "db", "name": "a"}
        operation = service.post("/v1/snapshots", body, key="k")["operation"]
        ended = call.terminal.follow(service, operation, label="snapshot a", seconds=20.0, enough=None)
        call.terminal.say(ended["state"])
        return Exit.DONE

    code, out, err = typed(Command("probe", "Probe.", run), "probe", "--addr", server.url)
    assert (code, out) == (0, "done\n")
    assert "snapshot a: ready" in err


def test_the_help_and_the_catalogue_name_the_same_commands() -> None:
    for kind in {*COMMANDS, *commands.SUMMARIES}:
        table = Catalog().commands(kind)
        assert {name: table.summary(name) for name in table.names()} == commands.SUMMARIES[kind]
        for name in table.names():
            assert table.command(name).name == name
            assert table.command(name).help.splitlines()[0] == table.summary(name)
    for kind, name in commands.SHORT.values():
        assert name in commands.SUMMARIES[kind]


def test_commands_join_the_group_of_an_orchestrators_roles() -> None:
    root = click.Group("root")
    roles = click.Group("kubernetes")
    root.add_command(roles)
    tables = {"kubernetes": {"probe": "Probe."}, "nomad": {"run": "Run."}}
    commands.attach(root, tables, {"go": ("nomad", "run")})
    assert root.commands["kubernetes"] is roles
    assert "probe" in roles.commands
    assert isinstance(root.commands["nomad"], click.Group)
    assert set(root.commands) == {"kubernetes", "nomad", "go"}


def test_the_exit_codes_are_the_command_lines() -> None:
    assert {code.name: int(code) for code in Exit} == {name: getattr(exits, name) for name in Exit.__members__}
