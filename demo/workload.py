"""Who writes and reads the claims' files in the Kubernetes demonstration: real pods or, without a node, mounts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import yaml

from demo.story import Story, checksum, fill
from tests.support import localdisk
from tests.support.bed import access, node, paths

SAMPLES = "configs/kubernetes/samples"
SOURCE, COPY = "notes", "notes-restored"
WRITE = (
    "mkdir /data/notes; for n in 1 2 3; do echo note $n > /data/notes/$n.txt; done;"
    " head -c 4000000 /dev/urandom > /data/photo.raw"
)
DAMAGE = "rm -r /data/notes; echo oops > /data/photo.raw"
SUM = "cd /data; find . -type f | sort | xargs md5sum | md5sum"


def kubectl(story: Story, *words: str, stdin: str = "", shown: str = "") -> None:
    """Run kubectl as a user would: KUBECONFIG is in the story's environment."""
    program = access.kubectl_program()
    story.run([program, *words], shown=shown or "kubectl " + " ".join(words), stdin=stdin)


class Workload(Protocol):
    """Writes the claim `notes` and reads both."""

    def write(self) -> str:
        """Fill the claim; the checksum of its files."""
        ...

    def damage(self) -> str:
        """Spoil some files; the checksum now."""
        ...

    def restored(self) -> str:
        """The checksum of the files in the restored claim."""
        ...

    def stop(self) -> None:
        """Nobody uses either claim any more."""
        ...


class Pods:
    """Two pods, made from the sample. All goes through `kubectl exec`."""

    def __init__(self, story: Story, place: node.Node) -> None:
        self._story, self._node = story, place

    def write(self) -> str:
        self._story.say(
            "(pod.yaml, with this node's name and network: there is no scheduler and no pod network here)"
        )
        self._start(SOURCE, f"{SAMPLES}/pod.yaml")
        self._exec(SOURCE, WRITE)
        return self._exec(SOURCE, SUM)

    def damage(self) -> str:
        self._exec(SOURCE, DAMAGE)
        return self._exec(SOURCE, SUM)

    def restored(self) -> str:
        self._story.say(f"(a second pod: pod.yaml with {COPY} as its name and claim)")
        self._start(COPY, "restored-pod.yaml")
        return self._exec(COPY, SUM)

    def stop(self) -> None:
        kubectl(self._story, "delete", "pod", SOURCE, COPY)

    def _start(self, name: str, file: str) -> None:
        pod = yaml.safe_load((paths.REPOSITORY / SAMPLES / "pod.yaml").read_text(encoding="utf-8"))
        pod["metadata"]["name"] = name
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = name
        manifest = json.dumps(self._node.prepare(pod))
        kubectl(self._story, "apply", "-f", "-", stdin=manifest, shown=f"kubectl apply -f {file}")
        kubectl(self._story, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")

    def _exec(self, pod: str, script: str) -> str:
        self._story.say(f"$ kubectl exec {pod} -- sh -c '{script}'")
        printed = self._story.output([access.kubectl_program(), "exec", pod, "--", "sh", "-ec", script]).strip()
        if printed:
            self._story.say(printed)
        return printed.partition(" ")[0]


class Mounts:
    """Without a node: the volumes are mounted here through the driver, by the calls that a kubelet would make."""

    def __init__(self, story: Story, admin: access.Access, disk: localdisk.LocalDisk) -> None:
        self._story, self._admin, self._disk = story, admin, disk
        self._mounted: dict[str, tuple[str, Path]] = {}

    def write(self) -> str:
        self._story.say("(there is no pod, so the demonstration itself mounts the volume and writes 22 files)")
        fill(self._mount(SOURCE))
        return self._sum(SOURCE)

    def damage(self) -> str:
        (self._mounted[SOURCE][1] / "photo.raw").write_bytes(b"oops")
        self._story.say("(photo.raw is overwritten)")
        return self._sum(SOURCE)

    def restored(self) -> str:
        self._mount(COPY)
        return self._sum(COPY)

    def stop(self) -> None:
        for handle, target in self._mounted.values():
            self._disk.withdraw(handle, target)

    def _mount(self, claim: str) -> Path:
        handle = volume_handle(self._admin, claim)
        target = self._disk.publish(handle)
        self._mounted[claim] = (handle, target)
        return target

    def _sum(self, claim: str) -> str:
        found = checksum(self._mounted[claim][1])
        self._story.say(f"checksum of the files in the claim {claim}: {found}")
        return found


def volume_handle(admin: access.Access, claim: str) -> str:
    """The CSI volume behind a claim of the namespace `default`."""
    volume = admin.get("pvc", claim)["spec"]["volumeName"]
    return str(admin.get("pv", volume)["spec"]["csi"]["volumeHandle"])
