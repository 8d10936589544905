"""Builds the Go servers that the tests run, once, into the cache.

The list of servers and their versions is `tools/servers/*/go.mod`. A build is keyed by a hash of
that module's files, so a changed version is a new build and an old checkout keeps its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.bed import locks, paths, process, toolchain

MODULES = paths.REPOSITORY / "tools" / "servers"
_HEARTBEAT_SECONDS = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """One server program: the tools module that pins it and the Go package that is its main."""

    name: str
    module: str
    package: str


_KUBERNETES = "k8s.io/kubernetes"
_SNAPSHOTTER = "github.com/kubernetes-csi/external-snapshotter/v8"
_SPEC = "github.com/container-storage-interface/spec"

PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        Program("csi-sanity", "csi-sanity", "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"),
        Program("kube-apiserver", "kubernetes", f"{_KUBERNETES}/cmd/kube-apiserver"),
        Program("kube-controller-manager", "kubernetes", f"{_KUBERNETES}/cmd/kube-controller-manager"),
        Program("kubelet", "kubernetes", f"{_KUBERNETES}/cmd/kubelet"),
        Program("kubectl", "kubernetes", f"{_KUBERNETES}/cmd/kubectl"),
        Program("kube-scheduler", "kubernetes", f"{_KUBERNETES}/cmd/kube-scheduler"),
        Program("snapshot-controller", "incumbent", f"{_SNAPSHOTTER}/cmd/snapshot-controller"),
        Program("csi-snapshotter", "incumbent", f"{_SNAPSHOTTER}/cmd/csi-snapshotter"),
    )
}
OPTIONAL = frozenset({"kubectl", "kube-scheduler"})
"""Built only when asked for by name: kubectl where the machine has none, the scheduler by nobody yet."""


def wanted() -> list[str]:
    """The programs that `make test` needs on this machine."""
    names = [name for name in PROGRAMS if name not in OPTIONAL]
    return names if shutil.which("kubectl") else [*names, "kubectl"]


def cached(name: str) -> Path:
    """Where a program's binary is, or will be once it is built."""
    program = _program(name)
    return _folder(program.module) / program.name


def binary(name: str) -> Path:
    """A program's binary, built now when the cache has none.

    Raises MissingServerError when there is no Go, and ServerError with the compiler's words when
    the build fails.
    """
    program, target = _program(name), cached(name)
    if target.exists():
        return target
    with locks.held(f"build-{program.module}"):
        if not target.exists():
            _build(program, target)
    return target


def build(names: Sequence[str]) -> None:
    """Build the named programs, one after the other, and print how long each took."""
    for number, name in enumerate(names, 1):
        known = cached(name).exists()
        started = time.monotonic()
        path = binary(name)
        took = "in the cache" if known else f"built in {time.monotonic() - started:.0f} s"
        print(f"bed: {number}/{len(names)} {name} {version(name)}: {took}: {path}", flush=True)


def version(name: str) -> str:
    """The version that the program's go.mod pins, such as v1.36.1."""
    program = _program(name)
    for path, found in re.findall(r"^(?:require )?\t?(\S+) (v\S+)$", _go_mod(program.module), re.MULTILINE):
        if program.package == path or program.package.startswith(path + "/"):
            return str(found)
    raise ValueError(f"tools/servers/{program.module}/go.mod does not require {program.package}")


def csi_spec_proto() -> Path:
    """The CSI specification's own csi.proto, in Go's module cache: read it, never copy it."""
    return _module_folder(_SPEC) / "csi.proto"


def snapshotter_client_module() -> Path:
    """The upstream snapshot client module's folder (CRDs in client/config/crd, CEL cases), in Go's module cache."""
    return _module_folder("github.com/kubernetes-csi/external-snapshotter/client/v8")


def snapshotter_module() -> Path:
    """The incumbent's module folder (its manifests in deploy/kubernetes), in Go's module cache. Test data only."""
    return _module_folder("github.com/kubernetes-csi/external-snapshotter/v8", "incumbent")


def _program(name: str) -> Program:
    if name not in PROGRAMS:
        raise process.MissingServerError(f"no server is called {name!r}; choose from {', '.join(PROGRAMS)}")
    return PROGRAMS[name]


def _go_mod(module: str) -> str:
    return (MODULES / module / "go.mod").read_text(encoding="utf-8")


def _folder(module: str) -> Path:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / module / name).read_bytes())
    digest.update(f"{platform.machine()} {_flags(module)}".encode())
    return paths.cache() / "servers" / f"{module}-{digest.hexdigest()[:12]}"


def _flags(module: str) -> list[str]:
    linker = "-s -w"
    if module == "kubernetes":
        pinned = version("kube-apiserver")
        major, minor, _ = pinned.removeprefix("v").split(".", 2)
        stamp = "k8s.io/component-base/version"
        linker += f" -X {stamp}.gitVersion={pinned} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    return ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker]


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}


def _build(program: Program, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    go = toolchain.go()
    print(f"bed: building {program.name} {version(program.name)} with {go}", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".build-") as scratch:
        fresh = Path(scratch) / program.name
        command = [str(go), "build", *_flags(program.module), "-o", str(fresh), program.package]
        _run_with_heartbeat(program.name, command, MODULES / program.module, Path(scratch) / "log")
        fresh.rename(target)


def _run_with_heartbeat(name: str, command: Sequence[str], folder: Path, log: Path) -> None:
    started = time.monotonic()
    with log.open("wb") as out:
        child = subprocess.Popen(command, cwd=folder, env=_environment(), stdout=out, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    code = child.wait(_HEARTBEAT_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    print(f"bed: … {name}: {time.monotonic() - started:.0f} s", flush=True)
        except BaseException:
            child.kill()
            child.wait()
            raise
    if code != 0:
        words = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise process.ServerError(f"building {name} failed ({code}): {' '.join(command)}\n{words}")


def _module_folder(module: str, beside: str = "spec") -> Path:
    command = [str(toolchain.go()), "mod", "download", "-json", module]
    done = subprocess.run(
        command, cwd=MODULES / beside, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise process.MissingServerError(
            f"Go module {module} cannot be had: {done.stderr.strip() or done.stdout.strip()}; "
            "check the network and GOPROXY"
        )
    return Path(json.loads(done.stdout)["Dir"])
