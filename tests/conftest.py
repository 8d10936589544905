"""What all tests share: the test bed's fixtures, its servers' logs on failure, and no silent skips."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests.support.bed import build, fixtures, journal, process
from tests.support.bed.fixtures import (
    control_plane,
    csi_sanity,
    namespace,
    node_fixture,
    own_control_plane,
    upstream_pair,
)

__all__ = ["control_plane", "csi_sanity", "namespace", "node_fixture", "own_control_plane", "upstream_pair"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A run in the background of a shell ignores it, and so would every program that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before anything is imported, and for the programs that tests start: nobody changes what a cache has given to all.
os.environ["SNAPBRIDGE_VERIFY_CACHE"] = "1"

# A run of CI tries the same examples each time; every other run, and `make nightly`, looks for new ones.
# No example has a deadline: on a busy machine any of them may take longer than 0.2 s.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("patient"), derandomize=True)
if os.environ.get("CI") == "true":
    hypothesis.settings.load_profile("ci")

HERE = Path(__file__).parent
TIERS = ("e2e", "integration", "contract", "unit")

_journal = journal.Journal()
_kept: list[Path] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tiers first: the last file to begin is then a quick one, and no process waits long for the other."""
    items.sort(key=lambda item: TIERS.index(item.path.relative_to(HERE).parts[0]))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what the chosen tests need now: a build in a test would run into that test's time limit."""
    if session.config.option.collectonly:
        return
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    try:
        missing = [name for name in fixtures.programs_for(used) if not build.cached(name).exists()]
        build.build(missing)
    except (process.MissingServerError, process.ServerError) as error:
        print(f"bed: {error}\nbed: the tests that need it will fail", flush=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _journal.mark()
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.fail("this test needs root: run as root, or deselect it with -m 'not root'", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with each failure what the servers wrote meanwhile."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {title}", text) for title, text in _journal.since_mark()]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.testsfailed:
        kept = journal.keep()
        if kept is not None:
            _kept.append(kept)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for folder in _kept:
        terminalreporter.write_line(f"server logs kept in {folder}")
    if not (os.environ.get("NOMAD_BIN") or shutil.which("nomad")):
        terminalreporter.write_line(
            "Nomad: no real agent took part (set NOMAD_BIN=/path/to/nomad to run its tests against one)"
        )
