"""Go's notation of flags, and what is refused."""

from __future__ import annotations

import pytest

from adapters.catalog import Catalog
from adapters.kubernetes import flags
from adapters.kubernetes.flags import Flag, Kind
from bridge.cli import roles
from bridge.model.failure import InvalidError

FLAGS = (
    Flag("kubeconfig", Kind.TEXT, "", "a file"),
    Flag("leader-election", Kind.TRUTH, False, "one of several"),
    Flag("kube-api-qps", Kind.NUMBER, 5.0, "rate"),
    Flag("worker-threads", Kind.WHOLE, 10, "threads"),
    Flag("resync-period", Kind.DURATION, 900.0, "pause"),
    Flag("csi-address", Kind.TEXTS, (), "sockets"),
    Flag("v", Kind.WHOLE, 0, "level"),
)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--kubeconfig=/a=b"], "kubeconfig", "/a=b"),
        (["-kubeconfig", "/a"], "kubeconfig", "/a"),
        (["--leader-election"], "leader-election", True),
        (["--leader_election=1"], "leader-election", True),
        (["--leader-election=false"], "leader-election", False),
        (["--kube-api-qps=100"], "kube-api-qps", 100.0),
        (["--worker-threads", "3"], "worker-threads", 3),
        (["--resync-period=1h2m3s"], "resync-period", 3723.0),
        (["--resync-period=1.5s"], "resync-period", 1.5),
        (["--csi-address=/a,/b", "--csi-address=/c"], "csi-address", ("/a", "/b", "/c")),
        (["-v=5"], "v", 5),
        ([], "worker-threads", 10),
        (["--"], "worker-threads", 10),
    ],
)
def test_a_value_is_read_as_go_reads_it(words: list[str], name: str, value: object) -> None:
    assert flags.parse(FLAGS, words).values[name] == value


@pytest.mark.parametrize(
    ("words", "field", "says"),
    [
        (["--leader-electoin"], "--leader-electoin", "Did you mean --leader-election?"),
        (["--nothing-like-it-at-all"], "--nothing-like-it-at-all", "See --help"),
        (["--kubeconfig"], "--kubeconfig", "needs a value"),
        (["--worker-threads=many"], "--worker-threads", "whole number"),
        (["--leader-election", "false"], "", "'false' belongs to no flag"),
        (["--leader-election=yes"], "--leader-election", "true or false"),
        (["--resync-period=15"], "--resync-period", "duration"),
        (["--resync-period=1x"], "--resync-period", "duration"),
        (["-"], "", "belongs to no flag"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(words: list[str], field: str, says: str) -> None:
    with pytest.raises(InvalidError) as caught:
        flags.parse(FLAGS, words)
    assert caught.value.field == field
    assert says in str(caught.value)


def test_the_help_text_has_every_flag_once() -> None:
    text = flags.help_text("program", "It does.", FLAGS)
    assert all(text.count(f"--{flag.name} ") == 1 for flag in FLAGS)


def test_the_commands_name_the_roles_that_there_are() -> None:
    for kind, named in roles.ROLES.items():
        table = Catalog().roles(kind)
        assert set(table.names()) <= set(named)
        for name in table.names():
            text = table.plan(name, ["--help"])
            assert isinstance(text, str)
            assert f"snapbridge {kind} {name}" in text
