"""What /livez and /readyz answer, from memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.ports.health import Check
from bridge.ports.orchestrator import Orchestrator
from bridge.ports.plugin import Plugins


class ServiceHealth:
    """The `Health` port over the wired parts. A dead plugin does not make the service unready for the others."""

    def __init__(
        self,
        orchestrators: Sequence[Orchestrator],
        plugins: Plugins,
        warnings: Sequence[str] = (),
        problems: Mapping[str, Callable[[], Sequence[str]]] | None = None,
        fence: Callable[[], str] = lambda: "",
    ) -> None:
        self._fence = fence
        self._orchestrators = orchestrators
        self._plugins = plugins
        self._warnings = warnings
        self._problems = problems or {}
        self.started = False
        self.stopping = False

    def alive(self) -> str:
        """The loop answers, so the process lives; a supervised task that dies ends the process."""
        return ""

    def checks(self) -> Sequence[Check]:
        """The service itself, then each cluster, then each plugin, then warnings."""
        itself = "it stops" if self.stopping else "" if self.started else "it starts"
        found = [Check("service", itself)]
        if reason := self._fence():
            found.append(Check("leadership", reason))
        sentences = {one.cluster: one.ready() for one in self._orchestrators}
        # One far cluster does not take the service from the others; with none in view it is not ready.
        blind = all(sentences.values())
        found += [Check(f"cluster {name}", text, fatal=blind) for name, text in sentences.items()]
        for row in self._plugins.describe():
            found.append(Check(f"plugin {row.id}", "" if row.healthy else row.sentence, fatal=False))
        for cluster, problems in self._problems.items():
            found += [Check(f"cluster {cluster}", text, fatal=False) for text in problems()]
        found += [Check("ledger", text, fatal=False) for text in self._warnings]
        return found
