"""The policies of configs/kubernetes/holds and holds-forgetting in a cluster, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from adapters.kubernetes import names
from tests.support import claims
from tests.support.bed import paths
from tests.support.bed.controlplane import ControlPlane

FOLDER = paths.REPOSITORY / "configs/kubernetes"
PLAIN, FORGETTING = "holds", "holds-forgetting"
LABEL, VALUE = "snapbridge.dev/hold", "at-create"
Object = dict[str, Any]


@contextlib.contextmanager
def in_force(plane: ControlPlane, folder: str, class_name: str) -> Iterator[None]:
    """Apply a folder and wait until it speaks for this class, which is labelled; then take it away again."""
    plane.kubectl("label", "--overwrite", "volumesnapshotclass", class_name, f"{LABEL}={VALUE}")
    plane.kubectl("apply", "-k", str(FOLDER / folder))
    try:
        until_spoken_for(plane, "default", class_name, forgotten if folder == FORGETTING else is_held)
        yield
    finally:
        plane.kubectl("delete", "--ignore-not-found", "-k", str(FOLDER / folder))


def until_spoken_for(
    plane: ControlPlane, namespace: str, class_name: str, holds: Callable[[Object], bool] | None = None
) -> None:
    """Until the server knows its policies and this class: it hears of both a moment later."""
    probe = claims.snapshot(namespace, "probe", "none", class_name)
    route = f"{claims.GROUP}/namespaces/{namespace}/volumesnapshots?dryRun=All"

    def answers() -> bool:
        status, body = plane.admin.request("POST", route, probe)
        return status == 201 and (holds or _has_one)(json.loads(body)["metadata"])

    claims.until(f"class {class_name} is spoken for", answers, 60.0)


def is_held(metadata: Object) -> bool:
    """Held by both finalizers, and by no other."""
    return metadata.get("finalizers") == list(names.SNAPSHOT_FINALIZERS)


def forgotten(metadata: Object) -> bool:
    """Held, and without field owners."""
    return is_held(metadata) and not metadata.get("managedFields")


def _has_one(metadata: Object) -> bool:
    return names.SOURCE_FINALIZER in (metadata.get("finalizers") or ())
