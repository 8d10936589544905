"""The quick start: one host, no orchestrator. A volume, a snapshot, damage, a restore, and nothing left."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from demo.driver import DRIVER, Driver
from demo.story import Story, checksum, fill

START_SECONDS = 30.0
CONFIG = """\
service: {{data_dir: {folder}/data, log_format: text}}
api: {{port: 0, unix_socket: {folder}/api.sock}}
plugins: [{{name: localdisk, socket: {socket}}}]
clusters:
  - name: here
    kind: standalone
    volumes: [{{name: data, driver: {driver}, handle: {handle}, capacity: 32MiB}}]
"""


def main() -> None:
    story = Story()
    print("Standalone: snapbridge and its own CSI driver on this host, in a temporary folder.")
    folder = Path(tempfile.mkdtemp(prefix="snapbridge-demo-"))
    with story.interruptible(), _folder(folder), Driver(folder / "driver", folder / "driver.log") as driver:
        _play(story, folder, driver)
    story.end(
        "Done. The data came back, and nothing is left behind.",
        "configs/standalone.yaml is a config to start from, docs/cli.md has every command",
    )


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Removed at the end, except after a failure: its logs are wanted then."""
    try:
        yield
    except BaseException as leaving:
        if isinstance(leaving, SystemExit) and leaving.code != 1:  # a signal
            shutil.rmtree(folder)
        else:
            print(f"   logs: {folder}/*.log", flush=True)
        raise
    shutil.rmtree(folder)


def _play(story: Story, folder: Path, driver: Driver) -> None:
    story.step("Make a volume with real files, as an application would")
    handle = driver.make_volume("demo-data", 32 << 20)
    mounted = driver.mount(handle)
    fill(mounted)
    before = checksum(mounted)
    story.say(f"CSI driver {DRIVER}, volume {handle}")
    story.say(f"its files have the checksum {before}")

    story.step("Start the service; it knows the driver's socket and calls the volume `data`")
    config = folder / "snapbridge.yaml"
    config.write_text(CONFIG.format(folder=folder, socket=driver.socket, handle=handle, driver=DRIVER))
    with Server(config, folder) as server:
        story.env["SNAPBRIDGE_ADDR"] = server.address
        story.say("$ snapbridge serve -c snapbridge.yaml &")
        story.snapbridge("plugin", "list")
        story.snapbridge("volume", "list")
        copy = _cut_and_restore(story, driver, mounted, before)
        _clean_up(story, driver, [handle, copy])


def _cut_and_restore(story: Story, driver: Driver, mounted: Path, before: str) -> str:
    story.step("Cut a snapshot and wait until it is ready")
    story.snapbridge("snapshot", "create", "data", "before-the-accident", "--wait")
    story.snapbridge("snapshot", "list")

    story.step("Have an accident: one folder is deleted, one file overwritten")
    shutil.rmtree(mounted / "notes")
    (mounted / "photo.raw").write_bytes(b"oops")
    story.expect(checksum(mounted) != before, f"the volume is damaged: checksum {checksum(mounted)}")

    story.step("Restore the snapshot into a new volume; the damaged one is not touched")
    (row,) = story.rows("snapshot")
    story.snapbridge("snapshot", "restore", row["name"], "--as", "data-restored", "--wait")
    copy = next(str(one["handle"]) for one in story.rows("volume") if one["name"] == "data-restored")
    restored = checksum(driver.mount(copy))
    story.expect(restored == before, f"the bytes are back: checksum {restored}")

    story.step("Delete the snapshot")
    story.snapbridge("snapshot", "delete", row["name"], "--yes")
    story.snapbridge("snapshot", "list")
    return copy


def _clean_up(story: Story, driver: Driver, handles: list[str]) -> None:
    story.step("Show that nothing is left, by asking the driver itself")
    story.expect(driver.snapshots() == [], "it holds no snapshot")
    for handle in handles:
        driver.unmount(handle)
        driver.delete_volume(handle)
    story.expect(driver.volumes() == [], "it holds no volume either, now that both are deleted")


class Server:
    """`snapbridge serve` on a config that names a unix socket."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._config = config
        self._log = folder / "service.log"
        self.address = f"unix:{folder}/api.sock"
        self._socket = folder / "api.sock"
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        words = [sys.executable, "-m", "bridge", "serve", "-c", str(self._config)]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        try:
            self._wait(self._child)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            if child.poll() is not None or time.monotonic() > deadline:
                print(f"   the service did not start:\n{self._log.read_text()[-3000:]}", flush=True)
                raise SystemExit(1)
            time.sleep(0.05)

    def __exit__(self, *_error: object) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait(timeout=START_SECONDS)


if __name__ == "__main__":
    main()
