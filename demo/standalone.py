"""The quick start: one host, no orchestrator. A volume, a snapshot, damage, a restore, and nothing left."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.driver import DRIVER, Driver
from demo.story import Story, checksum, fill

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
    folder = Path(tempfile.mkdtemp(prefix="snapbridge-demo-"))
    story = Story(folder)
    with Driver(folder / "driver", folder / "driver.log") as driver:
        _play(story, folder, driver)
    shutil.rmtree(folder)
    story.end("Done. The data came back, and nothing is left behind.")


def _play(story: Story, folder: Path, driver: Driver) -> None:
    story.step("Start a CSI driver over a directory, and make a volume with real files")
    handle = driver.make_volume("demo-data", 32 << 20)
    mounted = driver.mount(handle)
    fill(mounted)
    before = checksum(mounted)
    story.say(f"driver {DRIVER}, volume {handle}, checksum of its files {before}")

    story.step("Start the service: SQLite, one plugin, one cluster without an orchestrator")
    config = folder / "snapbridge.yaml"
    config.write_text(CONFIG.format(folder=folder, socket=driver.socket, handle=handle, driver=DRIVER))
    with Server(config, folder) as server:
        story.env["SNAPBRIDGE_ADDR"] = server.address
        story.snapbridge("plugin", "list")
        story.snapbridge("volume", "list")
        copy = _cut_and_restore(story, driver, mounted, before)
        _clean_up(story, driver, [handle, copy])


def _cut_and_restore(story: Story, driver: Driver, mounted: Path, before: str) -> str:
    story.step("Cut a snapshot and wait until it is ready")
    story.snapbridge("snapshot", "create", "data", "before-the-accident", "--wait")
    story.snapbridge("snapshot", "list")

    story.step("Damage the volume")
    shutil.rmtree(mounted / "notes")
    (mounted / "photo.raw").write_bytes(b"oops")
    story.expect(checksum(mounted) != before, f"the files are damaged: checksum {checksum(mounted)}")

    story.step("Restore the snapshot into a new volume")
    (row,) = story.snapbridge_json("snapshot", "list")["items"]
    story.snapbridge("snapshot", "restore", row["uid"], "--as", "data-restored", "--wait")
    volumes = story.snapbridge_json("volume", "list")["items"]
    copy = next(str(one["handle"]) for one in volumes if one["name"] == "data-restored")
    restored = checksum(driver.mount(copy))
    story.expect(restored == before, f"the bytes are back: checksum {restored}")

    story.step("Delete the snapshot")
    story.snapbridge("snapshot", "delete", row["uid"], "--yes", "--wait")
    story.snapbridge("snapshot", "list")
    return copy


def _clean_up(story: Story, driver: Driver, handles: list[str]) -> None:
    story.step("Show that nothing is left")
    for handle in handles:
        driver.unmount(handle)
        driver.delete_volume(handle)
    story.expect(driver.snapshots() == [], "the driver holds no snapshot")
    story.expect(driver.volumes() == [], "the driver holds no volume")


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
            self._child = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._socket.exists():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the service did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait(timeout=30)


if __name__ == "__main__":
    main()
