"""One run of one task: its directories, environment, identity files, Task API socket and process.

It must not restart anything, and no process may outlive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.nomad.state import Allocation, Row

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

_VARIABLE = re.compile(r"\$\{([^}]+)\}")


class TaskProcess:
    """The process of a task, or, for a task without a command, a stand-in that runs until it is stopped."""

    def __init__(self, agent: FakeNomad, allocation: Allocation, spec: Row) -> None:
        self.agent = agent
        self.allocation = allocation
        self.spec = spec
        self.directory = agent.data_dir / "alloc" / allocation.id / spec["Name"]
        self.secrets = self.directory / "secrets"
        self.process: asyncio.subprocess.Process | None = None
        self.api: Any = None
        self.ended = asyncio.Event()
        self.plugin_dir = agent.data_dir / "client" / "csi" / "plugins" / allocation.id
        self.environment: dict[str, str] = {}

    @property
    def serves_plugin(self) -> bool:
        return bool(self.spec.get("CSIPluginConfig"))

    @property
    def plugin_socket(self) -> Path:
        return self.plugin_dir / "csi.sock"

    async def start(self) -> None:
        """Build the task's directory and start its command. Raises OSError if it cannot be started."""
        for path in (self.directory / "local", self.secrets, self.directory.parent / "alloc" / "logs"):
            path.mkdir(parents=True, exist_ok=True)
        self.secrets.chmod(0o777)  # as recorded (identity.json)
        if self.serves_plugin:
            self.plugin_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._link_driver()
        self.environment = self._environment()
        (self.secrets / "api.sock").unlink(missing_ok=True)
        self.api = await self.agent.open_task_api(self.secrets / "api.sock")
        config = self.spec.get("Config") or {}
        command = config.get("command")
        given = self.serves_plugin and self.spec["CSIPluginConfig"]["ID"] in self.agent.plugin_drivers
        if given or not command or self.spec["Driver"] not in ("raw_exec", "exec"):
            return
        argv = [self._fill(str(part)) for part in (command, *(config.get("args") or []))]
        logs = self.directory.parent / "alloc" / "logs"
        with (
            (logs / f"{self.spec['Name']}.stdout.0").open("ab") as out,
            (logs / f"{self.spec['Name']}.stderr.0").open("ab") as err,
        ):
            self.process = await asyncio.create_subprocess_exec(
                *argv, cwd=self.directory, env=self.environment, stdin=asyncio.subprocess.DEVNULL, stdout=out,
                stderr=err, start_new_session=True,
            )  # fmt: skip

    def _link_driver(self) -> None:
        """A driver that the test runs itself is reached under the path where Nomad's plugins have their socket."""
        real = self.agent.plugin_sockets.get(self.spec["CSIPluginConfig"]["ID"])
        if real is not None and not self.plugin_socket.is_symlink():
            self.plugin_socket.symlink_to(real)

    def _fill(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match.group(1).removeprefix("env.")
            return self.environment.get(name, match.group(0))

        return _VARIABLE.sub(value, text)

    def _environment(self) -> dict[str, str]:
        allocation, job, spec = self.allocation, self.allocation.job, self.spec
        values = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.directory),
            "NOMAD_ALLOC_ID": allocation.id, "NOMAD_SHORT_ALLOC_ID": allocation.id[:8],
            "NOMAD_ALLOC_NAME": allocation.name, "NOMAD_ALLOC_INDEX": str(allocation.slot),
            "NOMAD_JOB_ID": job["ID"], "NOMAD_JOB_NAME": job["Name"], "NOMAD_NAMESPACE": allocation.namespace,
            "NOMAD_REGION": self.agent.state.region, "NOMAD_DC": "dc1", "NOMAD_GROUP_NAME": allocation.group,
            "NOMAD_TASK_NAME": spec["Name"], "NOMAD_TASK_DIR": str(self.directory / "local"),
            "NOMAD_ALLOC_DIR": str(self.directory.parent / "alloc"), "NOMAD_SECRETS_DIR": str(self.secrets),
        }  # fmt: skip
        if job["ParentID"]:
            values["NOMAD_JOB_PARENT_ID"] = job["ParentID"]
        for meta in (job["Meta"], allocation.group_spec["Meta"], spec["Meta"]):
            for key, text in (meta or {}).items():
                clean = re.sub(r"[^A-Za-z0-9_.]", "_", key)
                values[f"NOMAD_META_{clean}"] = values[f"NOMAD_META_{clean.upper()}"] = text
        if self.serves_plugin:
            values["CSI_ENDPOINT"] = f"unix://{self.plugin_socket}"
        values |= self._identities()
        self.environment = values
        return {**values, **{key: self._fill(text) for key, text in (spec["Env"] or {}).items()}}

    def _identities(self) -> dict[str, str]:
        """Token files (mode 0644) and variables of the identity blocks (nomad.md 3.5)."""
        values: dict[str, str] = {}
        others = [] if self._is_after_kill() else self.spec["Identities"] or []
        for identity in [self.spec["Identity"], *others]:
            token = self.agent.identity.sign(self.allocation, self.spec["Name"], identity)
            default = identity["Name"] == "default"
            if identity["File"]:
                path = self.secrets / ("nomad_token" if default else f"nomad_{identity['Name']}.jwt")
                path.write_text(token)
                path.chmod(0o644)
            if identity["Env"]:
                values["NOMAD_TOKEN" if default else f"NOMAD_TOKEN_{identity['Name']}"] = token
                values["NOMAD_UNIX_ADDR"] = f"unix://{self.secrets / 'api.sock'}"
        return values

    def _is_after_kill(self) -> bool:
        """A poststop task of an allocation that is being stopped: it gets its default identity only.

        Not recorded; seen on a real agent, which waits a minute for them first (client/allocrunner/identity_hook.go:
        PreKill shuts the identity manager down, client/widmgr/widmgr.go: Watch then gives nothing).
        """
        live = self.agent.runner.live.get(self.allocation.id)
        hook = (self.spec.get("Lifecycle") or {}).get("Hook")
        return hook == "poststop" and live is not None and live.stop.is_set()

    def takes_interrupts(self) -> bool:
        """Whether the process answers an interrupt by itself: a shell that has not come to its `trap` dies of one."""
        if self.process is None or self.process.returncode is not None:
            return True
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return True  # it has ended
        masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigCgt:", "SigIgn:"))]
        return any(int(mask, 16) & (1 << (signal.SIGINT - 1)) for mask in masks)

    async def wait(self, stop: asyncio.Event | None, kill_seconds: float) -> int:
        """Wait for the end, or stop it: interrupt, then kill after the time. Returns the exit code."""
        async with asyncio.TaskGroup() as group:
            over = group.create_task(self._over())
            asked = group.create_task(stop.wait() if stop is not None else asyncio.Event().wait())
            await asyncio.wait({over, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not over.done():
                await self._unwedged()
                self._signal(signal.SIGINT)
                await asyncio.wait({over}, timeout=kill_seconds * self.agent.settings.kill_scale)
                self._signal(signal.SIGKILL)
                await over
            asked.cancel()
        await self.close()
        return over.result()

    async def _unwedged(self) -> None:
        """A wedged exec task cannot be stopped until its executor is killed (nomad-verified.md A.3)."""
        wedge = self.agent.wedged.get((self.allocation.id, self.spec["Name"]))
        if wedge is not None:
            await wedge.wait()

    async def _over(self) -> int:
        if self.process is None:
            await self.ended.wait()
            return 0
        code = await self.process.wait()
        return 128 - code if code < 0 else code

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            self.ended.set()
        elif self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    async def kill(self) -> None:
        """End it now, whatever it does."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()
        await self.close()

    async def close(self) -> None:
        """Close the Task API socket; a stopped plugin's directory goes at once (nomad-verified.md D)."""
        api, self.api = self.api, None
        if api is not None:
            await api.cleanup()
        if self.serves_plugin:
            shutil.rmtree(self.plugin_dir, ignore_errors=True)
