"""The client's side of an allocation: claims, prestart, main, poststop, release; tasks are real processes.

It must not decide what is placed. A step can be held by a test (`agent.hold("claim")`), so that a moment that lasts
seconds on a real agent can be looked at.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.nomad import allocations, claims
from tests.support.nomad.events import event
from tests.support.nomad.processes import TaskProcess
from tests.support.nomad.state import Allocation, Row, now_ns, stamp

if TYPE_CHECKING:
    from tests.support.nomad.agent import FakeNomad

SECOND = 1_000_000_000


@dataclass(slots=True)
class Live:
    """An allocation that runs here."""

    allocation: Allocation
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    processes: dict[str, TaskProcess] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    flush: asyncio.TimerHandle | None = None


class Runner:
    """All allocations of the node."""

    def __init__(self, agent: FakeNomad) -> None:
        self.agent = agent
        self.live: dict[str, Live] = {}
        self.gates: dict[str, asyncio.Event] = {}

    def hold(self, step: str) -> None:
        self.gates[step] = asyncio.Event()

    def release(self, step: str) -> None:
        gate = self.gates.pop(step, None)
        if gate is not None:
            gate.set()

    async def _gate(self, step: str) -> None:
        gate = self.gates.get(step)
        if gate is not None:
            await gate.wait()

    def start(self, allocation: Allocation) -> None:
        live = Live(allocation)
        self.live[allocation.id] = live
        self.agent.spawn(self._run(live), f"allocation {allocation.name}")

    def stop(self, allocation: Allocation) -> None:
        """Ask the tasks to end; the main tasks say at once that they are being killed."""
        live = self.live.get(allocation.id)
        if live is None or live.stop.is_set():
            return
        live.stop.set()
        for spec in self._hooks(live, "prestart", "main", "poststart"):
            task = allocation.tasks.get(spec["Name"])
            if task is not None and task["State"] != "dead":
                seconds = spec["KillTimeout"] // SECOND
                allocations.add_event(
                    task, "Killing", f"Sent interrupt. Waiting {seconds}s before force killing",
                    Details={"kill_timeout": f"{seconds}s"}, KillTimeout=spec["KillTimeout"],
                )  # fmt: skip
        if allocation.tasks:
            self._tell(live)

    def _never_healthy(self, live: Live) -> None:
        """Stopped before it counted as healthy (recorded in events.json and volumes.json)."""
        if live.allocation.deployment_id and live.allocation.health is None:
            live.allocation.health = allocations.healthy_status(self.agent.state.index + 1, healthy=False)

    async def _run(self, live: Live) -> None:
        try:
            await self._gate("claim")
            if await self._claim(live):
                self._received(live)
                await self._gate("start")
                await self._lifecycle(live)
        finally:
            for process in live.processes.values():
                await process.kill()
        await self._gate("release")
        await self._unclaim(live)
        await self._finish(live)

    # Claims

    async def _claim(self, live: Live) -> bool:
        """Wait for the predecessor and for every volume, then take the claims. False if stopped before."""
        allocation = live.allocation
        state = self.agent.state
        while not live.stop.is_set():
            before = state.allocations.get(allocation.previous)
            wanted = [
                (state.volumes.get((allocation.namespace, source)), block)
                for source, block in claims.wanted(allocation)
            ]
            free = all(volume is not None and claims.free_for(volume, block) for volume, block in wanted)
            if free and (before is None or before.terminal):
                for volume, block in wanted:
                    assert volume is not None
                    claims.take(self.agent, volume, block, allocation)
                    await self._controller_turn(volume.spec["PluginID"])
                return True
            await state.change(0.2)
        return False

    async def _controller_turn(self, plugin_id: str) -> None:
        """Attach and detach wait for the plugin's one controller call in flight (nomad-verified.md B)."""
        plugin = self.agent.state.plugins.get(plugin_id)
        if plugin is not None and "AttachDetach" in plugin.facts.controller:
            async with plugin.serialised():
                return

    async def _unclaim(self, live: Live) -> None:
        allocation = live.allocation
        for volume in list(self.agent.state.volumes.values()):
            if allocation.id in volume.writers or allocation.id in volume.readers:
                await self._controller_turn(volume.spec["PluginID"])
                claims.release(self.agent, volume, allocation.id)
                self.agent.scheduler.unblock(volume.key)

    # Tasks

    def _hooks(self, live: Live, *kinds: str) -> list[Row]:
        found = []
        for spec in live.allocation.group_spec["Tasks"]:
            hook = (spec.get("Lifecycle") or {}).get("Hook") or "main"
            if hook in kinds:
                found.append(spec)
        return found

    def _received(self, live: Live) -> None:
        allocation = live.allocation
        for spec in allocation.group_spec["Tasks"]:
            task = allocation.tasks[spec["Name"]] = allocations.new_task()
            allocations.add_event(task, "Received", "Task received by client")
        for spec in self._hooks(live, "prestart") or self._hooks(live, "main"):
            self._setup(allocation.tasks[spec["Name"]])
        self._tell(live)

    @staticmethod
    def _setup(task: Row) -> None:
        if not any(each["Type"] == "Task Setup" for each in task["Events"]):
            message = "Building Task Directory"
            allocations.add_event(task, "Task Setup", message, Details={"message": message}, Message=message)

    async def _lifecycle(self, live: Live) -> None:
        prestart = self._hooks(live, "prestart")
        sidecars = [spec for spec in prestart if spec["Lifecycle"].get("Sidecar")]
        once = [spec for spec in prestart if spec not in sidecars]
        good = True
        async with asyncio.TaskGroup() as side:
            running = [side.create_task(self._task(live, spec)) for spec in sidecars]
            for spec in once:
                good = good and not live.stop.is_set() and await self._task(live, spec)
            mains = self._hooks(live, "main", "poststart")
            if good and not live.stop.is_set():
                results = await asyncio.gather(*(self._task(live, spec) for spec in mains))
                good = all(results)
            else:
                self._never_ran(live, mains, failed=not good)
            live.stop.set()
            await asyncio.gather(*running)
        for spec in self._hooks(live, "poststop"):
            # It runs while the volume is still mounted and claimed (nomad-verified.md C).
            await self._task(live, spec, ignore_stop=True)

    def _never_ran(self, live: Live, specs: list[Row], *, failed: bool) -> None:
        for spec in specs:
            task = live.allocation.tasks[spec["Name"]]
            if failed:
                sibling = next((n for n, t in live.allocation.tasks.items() if t["Failed"]), "")
                text = f'Task\'s sibling "{sibling}" failed'  # not recorded; Nomad's task event of that name
                allocations.add_event(task, "Sibling Task Failed", text, FailedSibling=sibling)
            task.update(State="dead", FinishedAt=stamp())
        self._tell(live)

    async def _task(self, live: Live, spec: Row, *, ignore_stop: bool = False) -> bool:
        """Run one task with its restart policy. True if it ended well or was stopped."""
        task = live.allocation.tasks[spec["Name"]]
        self._setup(task)
        await asyncio.sleep(self.agent.settings.task_setup_seconds if spec["Driver"] == "exec" else 0)
        attempts = spec["RestartPolicy"]["Attempts"]
        service = live.allocation.job["Type"] in ("service", "system") and not spec.get("Lifecycle")
        while True:
            code = await self._once(live, spec, task, ignore_stop=ignore_stop)
            stopped = live.stop.is_set() and not ignore_stop
            if stopped or (code == 0 and not service):
                break
            if attempts <= 0:
                self._give_up(task, spec)
                break
            attempts -= 1
            task["Restarts"] += 1
            allocations.add_event(task, "Restarting", "Task restarting", RestartReason="Restart within policy")
            self._tell(live)
            await asyncio.sleep(spec["RestartPolicy"]["Delay"] / SECOND * self.agent.settings.restart_delay_scale)
        task.update(State="dead", FinishedAt=stamp())
        self._tell(live)
        return not task["Failed"]

    @staticmethod
    def _give_up(task: Row, spec: Row) -> None:
        task["Failed"] = True
        # not recorded; Nomad's wording of an exhausted restart policy
        text = f'Exceeded allowed attempts {spec["RestartPolicy"]["Attempts"]} and mode is "fail"'
        allocations.add_event(task, "Not Restarting", text, FailsTask=True, RestartReason=text)

    async def _once(self, live: Live, spec: Row, task: Row, *, ignore_stop: bool) -> int:
        """One run of the task's process. Returns its exit code."""
        process = TaskProcess(self.agent, live.allocation, spec)
        live.processes[spec["Name"]] = process
        try:
            await process.start()
        except OSError as error:
            # not recorded; Nomad's event of a driver that cannot start the command
            allocations.add_event(
                task, "Driver Failure", f"failed to launch command: {error}", DriverError=str(error)
            )
            return 127
        task.update(State="running", StartedAt=stamp())
        allocations.add_event(task, "Started", "Task started by client")
        self._tell(live)
        if process.serves_plugin:
            self.agent.spawn(self._plugin(live, spec, process), f"plugin {spec['CSIPluginConfig']['ID']}")
        elif not spec.get("Lifecycle"):
            self.agent.spawn(self._healthy(live), f"health {live.allocation.name}")
        code = await process.wait(None if ignore_stop else live.stop, spec["KillTimeout"] / SECOND)
        killed = live.stop.is_set() and not ignore_stop
        details = {"exit_code": str(code), "signal": "0", "oom_killed": "false"}
        allocations.add_event(task, "Terminated", f"Exit Code: {code}", Details=details, ExitCode=code)
        if killed:
            allocations.add_event(task, "Killed", "Task successfully killed")
            self._never_healthy(live)
        if process.serves_plugin:
            self.agent.plugin_down(spec["CSIPluginConfig"]["ID"], live.allocation.id)
        return 0 if killed else code

    async def _plugin(self, live: Live, spec: Row, process: TaskProcess) -> None:
        if await self.agent.probe_plugin(spec["CSIPluginConfig"]["ID"], live.allocation, process):
            task = live.allocation.tasks[spec["Name"]]
            text = f"plugin: {spec['CSIPluginConfig']['ID']}"
            allocations.add_event(task, "Plugin became healthy", text, Details={"message": text}, Message=text)
            self._tell(live)
            await self._healthy(live)

    async def _healthy(self, live: Live) -> None:
        await asyncio.sleep(self.agent.settings.healthy_seconds)
        await self._gate("healthy")
        allocation = live.allocation
        running = [allocation.tasks[spec["Name"]]["State"] == "running" for spec in self._hooks(live, "main")]
        if allocation.deployment_id and allocation.health is None and all(running) and not live.stop.is_set():
            self.agent.scheduler.health(allocation, healthy=True)

    # Status

    def _tell(self, live: Live) -> None:
        """Send the client's view to the server: one AllocationUpdated line with the node's event beside it."""
        allocation = live.allocation
        states = [task["State"] for task in allocation.tasks.values()]
        if any(task["Failed"] for task in allocation.tasks.values()):
            allocation.client, allocation.client_description = self._failed(states)
        elif "running" in states:
            allocation.client, allocation.client_description = "running", "Tasks are running"
            allocation.networked = True
        elif "pending" in states:
            allocation.client, allocation.client_description = "pending", "No tasks have started"
            allocation.networked = True
        self._publish(live)

    @staticmethod
    def _failed(states: list[str]) -> tuple[str, str]:
        # The allocation counts as failed only when its tasks have ended, so that poststop still holds the claim.
        return ("running", "Tasks are running") if set(states) != {"dead"} else ("running", "Failed tasks")

    def _publish(self, live: Live) -> None:
        seconds = self.agent.settings.update_batch_seconds
        if not seconds:
            self._flush(live)
        elif live.flush is None:
            live.flush = asyncio.get_running_loop().call_later(seconds, self._flush, live)

    def _flush(self, live: Live) -> None:
        live.flush = None
        allocation = live.allocation
        index = self.agent.state.commit("allocs", "job_summary", "nodes", "csi_plugins")
        allocation.modify_index, allocation.modify_time = index, now_ns()
        job = self.agent.state.job(allocation.namespace, allocation.job["ID"])
        events = self.agent.scheduler.plugin_events(job) if job else []
        events.append(self.agent.scheduler.allocation_event(allocation))
        events.append(event("Node", allocation.node_id, "", {"Node": self.agent.node_row()}))
        self.agent.events.publish(index, "AllocationUpdated", events)

    async def _finish(self, live: Live) -> None:
        if live.flush is not None:
            await asyncio.sleep(max(0.0, live.flush.when() - asyncio.get_running_loop().time() - 0.001))
        allocation = live.allocation
        failed = any(task["Failed"] for task in allocation.tasks.values())
        allocation.client = "failed" if failed else "complete"
        allocation.client_description = "Failed tasks" if failed else "All tasks have completed"
        if failed and allocation.deployment_id and allocation.health is None:
            self.agent.scheduler.health(allocation, healthy=False)
        elif live.stop.is_set():
            self._never_healthy(live)
        if live.flush is not None:
            live.flush.cancel()
        self._flush(live)
        self._job_over(allocation)
        self.live.pop(allocation.id, None)
        live.done.set()

    def _job_over(self, allocation: Allocation) -> None:
        job = self.agent.state.job(allocation.namespace, allocation.job["ID"])
        if job is None:
            return
        status = self.agent.scheduler.status_of(job)
        if status != job["Status"]:
            index = self.agent.state.commit("jobs")
            job["Status"], job["ModifyIndex"] = status, index
            self.agent.events.publish(index, "EvaluationUpdated", [self.agent.scheduler.job_event(job)])
