"""`FakeNomad`: one Nomad agent (server and client) on a loopback port, with state of its own.

    async with FakeNomad() as agent:
        await agent.add_plugin("hostpath", socket_path)
        session.get(agent.url + "/v1/plugins?type=csi")

It must not read a recording. The replay test holds it to them; an answer that no recording shows is marked so in
the code, with its source.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.support.bed import ports
from tests.support.nomad import acl as acl_module
from tests.support.nomad import agent_info, controller_calls, plugins, routes, submissions, volumes
from tests.support.nomad.answers import Refusal, no_such_path, refuse
from tests.support.nomad.csi_driver import SocketDriver
from tests.support.nomad.drivers import Driver, DriverError, DriverFacts
from tests.support.nomad.events import EventBroker, StreamSettings
from tests.support.nomad.faults import Call, Faults
from tests.support.nomad.identity import Signer
from tests.support.nomad.jobspec import canonical
from tests.support.nomad.plugin_job import plugin_job
from tests.support.nomad.plugins import Plugin
from tests.support.nomad.processes import TaskProcess
from tests.support.nomad.runner import Runner
from tests.support.nomad.scheduler import Scheduler
from tests.support.nomad.settings import Settings
from tests.support.nomad.state import Allocation, Row, State, new_id, now_ns, stamp

T = TypeVar("T")


class FakeNomad:
    """A fake agent. Use it as an async context manager; every process and socket of it ends with the block."""

    def __init__(
        self, *, acl: bool = False, settings: Settings | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.tls = tls
        self.peers: dict[str, FakeNomad] = {}
        self.state = State(node_name=self.settings.node_name, region=self.settings.region)
        stream = StreamSettings(
            self.settings.heartbeat_seconds, self.settings.denied_close_seconds, self.settings.stream_status_line
        )
        self.events = EventBroker(self.settings.event_buffer_size, stream)
        self.acl = acl_module.Acl(self, acl)
        self.identity = Signer(self.settings.region)
        self.scheduler = Scheduler(self)
        self.runner = Runner(self)
        self.faults = Faults()
        self.calls: list[Call] = []
        self.commands: set[asyncio.subprocess.Process] = set()
        self.wedged: dict[tuple[str, str], asyncio.Event] = {}
        self.plugin_drivers: dict[str, Driver] = {}
        self.plugin_sockets: dict[str, str] = {}
        self._said_down: set[str] = set()
        self.server_id = new_id()
        self.started_at = stamp()
        # Short, so that the Task API's socket stays below the 108 bytes of a unix path.
        self.data_dir = Path(tempfile.mkdtemp(prefix="fnomad"))
        self.port = 0
        self._site: web.TCPSite | None = None
        self._web: web.AppRunner | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failures: list[BaseException] = []
        self.state.tables["root_keys"] = self.state.index

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for event in self.wedged.values():
            event.set()
        for process in self.commands:
            if process.returncode is None:
                process.kill()
        await self.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self.data_dir, ignore_errors=True)
        if self._failures:
            raise ExceptionGroup(
                "the fake agent failed inside", [e for e in self._failures if isinstance(e, Exception)]
            )

    async def start(self) -> None:
        """Listen; after a stop, on the same port."""
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{tail:.*}", self._over_tcp)
        self._web = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._web.setup()
        if not self.port:
            self.port = ports.free()  # not one that the kernel hands out while the agent is away
        self._site = web.TCPSite(self._web, "127.0.0.1", self.port, reuse_address=True, ssl_context=self.tls)
        await self._site.start()

    async def stop(self) -> None:
        """Go away: connections are cut and new ones refused. Allocations keep running, as on a real node."""
        self.events.close_streams(abort=True)
        runner, self._web = self._web, None
        if runner is not None:
            await runner.cleanup()

    async def restart(self) -> None:
        """Stop and start: the event buffer is lost, the state is not."""
        await self.stop()
        self.events.clear()
        await self.start()

    def federate(self, other: FakeNomad) -> None:
        """Join two regions: a request for the other's region is passed on to it."""
        self.peers[other.state.region] = other
        other.peers[self.state.region] = self

    def restore(self, index: int) -> None:
        """What `nomad operator snapshot restore` of an older snapshot does: what came after that index is gone, the
        index goes on from there, streams end and blocking queries wake (nomad/fsm.go Restore, StateStore.Abandon)."""
        self.state.go_back(index)
        self.events.clear()
        self.events.close_streams(abort=False)
        self.state.ring()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def rpc_address(self) -> str:
        return f"127.0.0.1:{self.port + 1 if self.port < 65535 else 1}"

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run something beside the requests. A failure comes up when the agent's block ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    # Faults

    def drop_streams(self) -> None:
        """Cut every open event stream; the buffer stays."""
        self.events.close_streams(abort=True)

    def end_streams(self) -> None:
        """End every open event stream with an EOF, as after an ACL change (nomad.md 3.1)."""
        self.events.close_streams(abort=False)

    def deny_streams(self, denied: bool = True) -> None:
        """From now on a stream gets 200 and silence (nomad-verified.md A.1)."""
        self.events.denied = denied

    def delay(self, method: str, path: str, seconds: float) -> None:
        """Every request that matches (path is a glob) waits first, until `clear_faults`."""
        self.faults.delay(method, path, seconds)

    def fail_next(
        self, method: str, path: str, *, status: int = 500, text: str = "rpc error: No cluster leader", times: int = 1
    ) -> None:
        """Refuse the next matching requests without any effect."""
        self.faults.add(method, path, times=times, status=status, text=text)

    def lose_leader_after(self, method: str, path: str, text: str) -> None:
        """Do the next matching request, and answer that the leader was lost while it was passed on.

        Not recorded: nomad/rpc.go (forward, forwardLeader), nomad/structs/errors.go (ErrNoLeader).
        """
        self.faults.add(method, path, times=1, text=text, done=True)

    def cut_next(self, method: str, path: str, *, after: bool, times: int = 1) -> None:
        """Cut the connection of the next matching requests, before or after their effect (a lost reply).

        aiohttp's client repeats a GET, PUT or DELETE once by itself, so a caller sees the cut only with times=2.
        """
        self.faults.add(method, path, times=times, cut="after" if after else "before")

    def clear_faults(self) -> None:
        self.faults.clear()

    def hold(self, step: str) -> None:
        """Hold every allocation at a step: claim, start, healthy, release. `release_step` lets them go on."""
        self.runner.hold(step)

    def release_step(self, step: str) -> None:
        self.runner.release(step)

    async def capped(self, call: Coroutine[Any, Any, T], rpc: str) -> T:
        """A controller call under Nomad's deadline of 2 minutes (nomad.md 1.4)."""
        try:
            async with asyncio.timeout(self.settings.controller_cap_seconds):
                return await call
        except TimeoutError as error:
            text = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
            raise controller_calls.CallError(f"CSI.{rpc}: {text}") from error

    # Requests

    async def _over_tcp(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, task_api=False)

    async def _over_task_api(self, request: web.Request) -> web.StreamResponse:
        return await self._handle(request, task_api=True)

    async def _handle(self, request: web.Request, *, task_api: bool) -> web.StreamResponse:
        path = routes.path_of(request)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            response = await self.faults.around(request, path, lambda: self._serve(request, path, task_api))
        except Refusal as refusal:
            response = refuse(refusal)
        status = response.status if response is not None else 0
        token = acl_module.token_of(request)
        self.calls.append(Call(request.method, path, dict(request.query), status, token, loop.time() - began))
        return response if response is not None else web.Response()

    async def _serve(self, request: web.Request, path: str, task_api: bool) -> web.StreamResponse:
        if task_api:
            self._check_task_api(request)
        region = request.query.get("region", self.state.region)
        if region in self.peers:
            return await self.peers[region]._serve(request, path, task_api)
        if region != self.state.region:
            raise Refusal(500, "No path to region")
        if routes.late_check(path):
            request[acl_module.CALLER] = acl_module.ANONYMOUS if self.acl.enabled else acl_module.EVERYONE
        elif not path.startswith("/.well-known/") and path != "/v1/acl/bootstrap":
            self.acl.resolve(request)
        return await routes.dispatch(self, request) or no_such_path()

    def _check_task_api(self, request: web.Request) -> None:
        """The Task API always wants a token; with ACLs on it must be a known one (nomad-verified.md G)."""
        token = acl_module.token_of(request)
        if not token:
            raise Refusal(401, "Unauthorized")
        known = token in self.state.tokens or self.identity.verify(token) is not None
        if self.acl.enabled and not known:
            raise Refusal(403, "Forbidden")

    def stream_allowed(self, request: web.Request) -> bool:
        if not self.acl.enabled:
            return True
        caller = self.acl.caller_of(acl_module.token_of(request))
        return caller is not None and self.acl.stream_allowed(request, caller)

    async def open_task_api(self, path: Path) -> web.AppRunner | None:
        """The Task API socket of one task. None if its path is too long, which Nomad survives too (nomad.md 3.3)."""
        if len(str(path)) >= 108:
            return None
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{tail:.*}", self._over_task_api)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        os.chmod(path, 0o666)
        return runner

    # Plugins

    async def add_plugin(
        self, plugin_id: str, driver: Driver | str | Path, *, job_type: str = "system", job: Row | None = None
    ) -> Plugin:
        """Run a plugin whose driver is a socket path or an object of this process; returns when it is healthy.

        It has a job and an allocation, and a socket path appears at
        `<data_dir>/client/csi/plugins/<allocation>/csi.sock`, as Nomad's own would. A job that is given is
        registered as it is, and its command is not run, as the driver is there already.
        """
        if isinstance(driver, str | Path):
            self.plugin_sockets[plugin_id] = str(driver)
            self.plugin_drivers[plugin_id] = SocketDriver(str(driver))
        else:
            self.plugin_drivers[plugin_id] = driver
        task = {"Name": "plugin", "Driver": "raw_exec", "CSIPluginConfig": {"ID": plugin_id, "Type": "monolith"}}
        spec = {"ID": f"csi-{plugin_id}", "Type": job_type, "TaskGroups": [{"Name": "g", "Tasks": [task]}]}
        self.register(canonical(job or spec))
        return await self.plugin_healthy(plugin_id)

    async def run_plugin(
        self, plugin_id: str, argv: Sequence[str], env: Mapping[str, str] | None = None, timeout_seconds: float = 60.0
    ) -> str:
        """Run a driver's program as a plugin, as on a real agent; returns its allocation's id when it is healthy."""
        body = plugin_job(plugin_id, argv, str(self.state_dir), env)
        self.register(canonical(body["Job"]))
        return (await self.plugin_healthy(plugin_id, timeout_seconds)).allocation_id

    @property
    def state_dir(self) -> Path:
        """The client's state directory; plugin sockets are below it."""
        return self.data_dir / "client"

    def plugin_socket(self, allocation_id: str) -> Path:
        """Where the driver of a plugin's allocation listens (nomad.md 1.2)."""
        return self.state_dir / "csi" / "plugins" / allocation_id / "csi.sock"

    def register(self, job: Row) -> Row:
        """Register a canonical job without going over HTTP."""
        index = self.state.commit("jobs", "evals")
        job.update(CreateIndex=index, ModifyIndex=index, JobModifyIndex=index, Status="pending", SubmitTime=now_ns())
        submissions.store(self, job, index)
        return job

    async def plugin_healthy(self, plugin_id: str, timeout_seconds: float = 60.0) -> Plugin:
        """Wait until the plugin is healthy."""
        async with asyncio.timeout(timeout_seconds):
            while not (plugin := self.state.plugins.get(plugin_id)) or not plugin.healthy:
                await self.state.change(0.1)
        found: Plugin = plugin
        return found

    def expect_plugin(self, plugin_id: str, job: Row, index: int) -> None:
        """A job with this plugin was registered: the plugin is known from now on, not yet healthy."""
        if plugin_id not in self.state.plugins:
            driver = self.plugin_drivers.get(plugin_id) or SocketDriver("")
            self.state.plugins[plugin_id] = Plugin(
                plugin_id, driver, DriverFacts("", ""), job["ID"], job["Namespace"], "", index, index, healthy=False
            )
            self.state.tables["csi_plugins"] = index

    async def probe_plugin(self, plugin_id: str, allocation: Allocation, process: TaskProcess) -> bool:
        """Probe until the driver answers, then take its facts. False if the task ended before."""
        plugin: Plugin = self.state.plugins[plugin_id]
        plugin.driver = self.plugin_drivers.get(plugin_id) or SocketDriver(str(process.plugin_socket))
        while allocation.id in self.runner.live and allocation.desired == "run":
            try:
                facts = await plugin.driver.facts()
            except DriverError:
                await asyncio.sleep(self.settings.plugin_probe_seconds)
                continue
            plugin.facts, plugin.allocation_id = facts, allocation.id
            plugins.set_health(self, plugin, healthy=True)
            self.spawn(self._fingerprint(plugin, allocation), f"fingerprint {plugin_id}")
            return True
        return False

    async def _fingerprint(self, plugin: Plugin, allocation: Allocation) -> None:
        """Ask the driver again and again while its allocation is the plugin's."""
        while plugin.allocation_id == allocation.id:
            await asyncio.sleep(self.settings.fingerprint_seconds)
            if plugin.allocation_id != allocation.id:
                return
            if plugin.id in self._said_down:
                continue
            try:
                await plugin.driver.facts()
            except DriverError:
                healthy = False
            else:
                healthy = True
            if healthy is not plugin.healthy:
                plugins.set_health(self, plugin, healthy)

    def plugin_down(self, plugin_id: str, allocation_id: str) -> None:
        """The plugin's task ended."""
        plugin = self.state.plugins.get(plugin_id)
        if plugin is not None and plugin.allocation_id == allocation_id:
            plugin.allocation_id = ""
            plugins.set_health(self, plugin, healthy=False)

    def set_plugin_health(self, plugin_id: str, healthy: bool) -> None:
        """Say that a fingerprint failed, for as long as nothing else is said, or worked again."""
        (self._said_down.discard if healthy else self._said_down.add)(plugin_id)
        plugins.set_health(self, self.state.plugins[plugin_id], healthy)

    async def replace_plugin_allocation(self, plugin_id: str) -> str:
        """Stop the plugin's allocation; returns the new one's id when the plugin is healthy again."""
        plugin: Plugin = self.state.plugins[plugin_id]
        old = self.state.allocations[plugin.allocation_id]
        self.scheduler.replace(old)
        async with asyncio.timeout(60):
            while plugin.allocation_id in ("", old.id) or not plugin.healthy:
                await self.state.change(0.1)
        return plugin.allocation_id

    def forget_volume(self, volume_id: str, namespace: str = "default") -> None:
        """Drop a registration behind everyone's back."""
        volumes.forget(self, self.state.volumes[(namespace, volume_id)])

    # Views

    def node_row(self) -> Row:
        return agent_info.node_row(self)

    def task_log(self, allocation_id: str, task: str, stream: str = "stdout") -> str:
        """What a task wrote so far."""
        path = self.data_dir / "alloc" / allocation_id / "alloc" / "logs" / f"{task}.{stream}.0"
        return path.read_text() if path.exists() else ""

    async def job_settled(
        self, job_id: str, namespace: str = "default", timeout_seconds: float = 60.0
    ) -> list[Allocation]:
        """Wait until no allocation of the job is pending or about to stop; returns them, newest first."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                rows = self.state.job_allocations(namespace, job_id)
                waiting = [a for a in rows if a.client == "pending" or (a.desired == "stop" and not a.terminal)]
                open_ = [
                    e for e in self.state.evaluations.values() if e["JobID"] == job_id and e["Status"] == "pending"
                ]
                if not waiting and not open_:
                    return rows
                await self.state.change(0.1)

    def unwedge(self, allocation_id: str, task: str) -> None:
        """Kill the executor of a task that an exec of a missing program has wedged (nomad-verified.md A.3)."""
        self.wedged.pop((allocation_id, task)).set()
