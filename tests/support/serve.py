"""`snapbridge serve` as a process of its own, and the CLI beside it: what a user runs, for end-to-end tests."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.bed import paths, ports, process


@dataclasses.dataclass(slots=True)
class Serve:
    """A service with its config. `kill` and `start` may be called as often as a test likes."""

    folder: Path
    port: int
    config: Path
    process: process.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Serve:
        self.process.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.stop()

    def start(self) -> None:
        self.process.start()

    def kill(self) -> None:
        """As a crash would."""
        self.process.kill()

    def cli(self, *words: str, check: bool = True, seconds: float = 150.0) -> subprocess.CompletedProcess[str]:
        """Run the command against this service. With `check`, a failure shows what was printed."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env={**os.environ, "SNAPBRIDGE_ADDR": self.url, "NO_COLOR": "1"},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"snapbridge {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def cli_json(self, *words: str) -> Any:
        """The command's JSON."""
        return json.loads(self.cli(*words, "-o", "json").stdout)

    def get(self, path: str) -> Any:
        """GET a path of the API as JSON."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """One HTTP call: its status and its JSON. Bytes are sent as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        more = {"Content-Type": "application/json"} if data is not None else {}
        asked = urllib.request.Request(self.url + path, method=method, data=data, headers={**more, **(headers or {})})
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def metrics(self) -> str:
        """What `/metrics` says."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
        return text


def service(
    *,
    clusters: list[Mapping[str, Any]],
    plugins: list[Mapping[str, Any]],
    folder: Path | None = None,
    probe: str = "/readyz",
    **more: Any,
) -> Serve:
    """A service that is not started yet. `more` are further sections of the config. It counts as started when `probe`
    answers 200."""
    folder = folder or paths.fresh("serve")
    folder.mkdir(parents=True, exist_ok=True)
    port = ports.free()
    sections: dict[str, Any] = {
        "service": {"data_dir": str(folder / "data"), "log_level": "info", "log_format": "json"},
        "api": {"port": port},
        "clusters": [dict(one) for one in clusters],
        "plugins": [dict(one) for one in plugins],
    }
    for name, section in more.items():
        sections[name] = {**sections.get(name, {}), **section} if isinstance(section, dict) else section
    config = folder / "snapbridge.yaml"
    config.write_text(yaml.safe_dump(sections, sort_keys=False))

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{probe}", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    launch = process.Launch(
        name="snapbridge",
        argv=[sys.executable, "-m", "bridge", "serve", "-c", config],
        log=folder / "log",
        ready=ready,
        ready_seconds=60,
    )
    return Serve(folder, port, config, process.Process(launch))
