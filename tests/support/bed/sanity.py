"""csi-sanity: the CSI conformance suite, run against any CSI socket, its verdict read from its report."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.bed import build, paths, process


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What csi-sanity found: the names of its specs by outcome, and its whole output."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped: tuple[str, ...]
    skip_reasons: Mapping[str, str]
    """Skipped spec -> why, in the suite's words; specs left out by `skip` or `focus` are not in it."""
    output: str
    seconds: float

    def __str__(self) -> str:
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        return f"csi-sanity: {counts} in {self.seconds:.1f} s"


def run(
    endpoint: str | Path,
    *,
    flags: Sequence[str] = (),
    skip: str | None = None,
    focus: str | None = None,
    seconds: float = 150.0,
) -> Verdict:
    """Run the suite against a CSI socket (a path, or unix://…) and give its verdict.

    `flags` are csi-sanity's own, such as `--csi.testvolumesize=1048576`; `skip` and `focus` are
    regular expressions over spec names. Raises ServerError when the suite itself breaks or is
    not done after `seconds`, or at once when a socket path does not exist.
    """
    folder = paths.fresh("sanity")
    report, log = folder / "report.json", folder / "log"
    address = str(endpoint) if "://" in str(endpoint) else f"unix://{Path(endpoint).resolve()}"
    if address.startswith("unix://") and not Path(address.removeprefix("unix://")).is_socket():
        raise process.ServerError(
            f"csi-sanity has nothing to test: {address} is not a socket; start the driver first"
        )
    command = [
        str(build.binary("csi-sanity")),
        f"--csi.endpoint={address}",
        f"--csi.mountdir={folder / 'mount'}",
        f"--csi.stagingdir={folder / 'staging'}",
        "--ginkgo.no-color",
        f"--ginkgo.json-report={report}",
        *([f"--ginkgo.skip={skip}"] if skip else []),
        *([f"--ginkgo.focus={focus}"] if focus else []),
        *flags,
    ]
    with log.open("wb") as out:
        try:
            subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise process.ServerError(f"csi-sanity was not done after {seconds:.0f} s\n{_tail(log)}") from None
    if not report.exists():
        raise process.ServerError(f"csi-sanity wrote no report\n{_tail(log)}")
    return _verdict(json.loads(report.read_text(encoding="utf-8")), log.read_text(errors="replace"))


def _verdict(suites: list[dict[str, object]], output: str) -> Verdict:
    names: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    reasons: dict[str, str] = {}
    seconds = 0.0
    for suite in suites:
        seconds += float(str(suite["RunTime"])) / 1e9
        specs = suite["SpecReports"]
        assert isinstance(specs, list)
        for spec in specs:
            if spec["LeafNodeType"] != "It":
                continue
            state = str(spec["State"])
            outcome = "skipped" if state == "pending" else state if state in names else "failed"
            hierarchy = spec.get("ContainerHierarchyTexts") or []
            name = " ".join([*hierarchy, spec["LeafNodeText"]])
            names[outcome].append(name)
            if outcome == "skipped" and spec.get("Failure"):
                reasons[name] = spec["Failure"]["Message"]
    return Verdict(
        passed=tuple(names["passed"]),
        failed=tuple(names["failed"]),
        skipped=tuple(names["skipped"]),
        skip_reasons=reasons,
        output=output,
        seconds=seconds,
    )


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-process.TAIL_LINES :])
