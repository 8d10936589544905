"""Writes that a real API server refuses on demand: an admission policy that asks a ConfigMap.

A rule is an operation, a resource and the name of the VolumeSnapshot (or claim) that it concerns, such as
`CREATE.volumesnapshotcontents.snapshot-7`. A refusal is a 422, as from any other admission policy of a cluster.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from tests.support import calls

Object = dict[str, Any]

WORDS = "refused by this test"
CREATE_CONTENT = "CREATE.volumesnapshotcontents"
UPDATE_CONTENT = "UPDATE.volumesnapshotcontents"
DELETE_CONTENT = "DELETE.volumesnapshotcontents"
UPDATE_STATUS = "UPDATE.volumesnapshots"
UPDATE_CLAIM = "UPDATE.persistentvolumeclaims"

_POLICIES = "/apis/admissionregistration.k8s.io/v1"
_RULES = "/api/v1/namespaces/default/configmaps"
_NAME = "refusals"
_CONTENTS = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents"
_SUBJECT = "(request.operation == 'DELETE' ? oldObject : object)"
_CALLED = (
    f"request.resource.resource == 'volumesnapshotcontents' ? {_SUBJECT}.spec.volumeSnapshotRef.name : request.name"
)
_KEY = "request.operation + '.' + request.resource.resource + '.' + variables.called"
_EFFECT_SECONDS = 60.0
_numbers = itertools.count(1)


def install(admin: calls.Calls) -> None:
    """Put the policy into force, and wait until it is."""
    admin.create(_RULES, {"metadata": {"name": _NAME}, "data": {}})
    admin.create(f"{_POLICIES}/validatingadmissionpolicies", {"metadata": {"name": _NAME}, "spec": _policy()})
    binding = {
        "policyName": _NAME,
        "validationActions": ["Deny"],
        "paramRef": {"name": _NAME, "namespace": "default", "parameterNotFoundAction": "Allow"},
    }
    admin.create(f"{_POLICIES}/validatingadmissionpolicybindings", {"metadata": {"name": _NAME}, "spec": binding})
    refuse(admin)


def _policy() -> Object:
    def rule(group: str, operations: list[str], *resources: str) -> Object:
        return {
            "apiGroups": [group],
            "apiVersions": ["v1"],
            "operations": operations,
            "resources": list(resources),
        }

    group = "snapshot.storage.k8s.io"
    return {
        "failurePolicy": "Fail",
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {
            "resourceRules": [
                rule(group, ["CREATE", "UPDATE", "DELETE"], "volumesnapshotcontents"),
                rule(group, ["UPDATE"], "volumesnapshots/status"),
                rule("", ["UPDATE"], "persistentvolumeclaims"),
            ]
        },
        "variables": [{"name": "called", "expression": _CALLED}, {"name": "key", "expression": _KEY}],
        "validations": [
            {"expression": "!has(params.data) || !(variables.key in params.data)", "message": WORDS},
        ],
    }


def refuse(admin: calls.Calls, *rules: str) -> None:
    """Refuse these from now on; it is in effect when this returns."""
    probe = f"probe-{next(_numbers)}"
    data = {**dict.fromkeys(rules, "yes"), f"{CREATE_CONTENT}.{probe}": "yes"}
    admin.patch(f"{_RULES}/{_NAME}", {"data": data})
    body = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": probe},
        "spec": {
            "driver": "nobody",
            "deletionPolicy": "Retain",
            "source": {"snapshotHandle": probe},
            "volumeSnapshotRef": {"namespace": "default", "name": probe},
        },
    }
    deadline = time.monotonic() + _EFFECT_SECONDS
    while True:
        try:
            admin.create(f"{_CONTENTS}?dryRun=All", body)
        except calls.RefusedError as error:
            if error.status == 422 and WORDS in str(error):
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"the policy was not in effect after {_EFFECT_SECONDS:.0f} s")
        time.sleep(0.02)


def allow(admin: calls.Calls, *rules: str) -> None:
    """Refuse these no longer."""
    admin.patch(f"{_RULES}/{_NAME}", {"data": dict.fromkeys(rules)})
