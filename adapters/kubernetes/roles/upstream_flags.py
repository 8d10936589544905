"""Flags that several of upstream's programs share, and what they mean for our settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic

from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.names import Naming
from adapters.kubernetes.settings import MOST_PREFIX, MOST_UUID, Settings
from bridge.model.failure import InvalidError

NEVER_SECONDS = 10 * 365 * 86400.0

LOGGING = (
    Flag("v", Kind.WHOLE, 2, "Log verbosity; 5 and more logs every plugin call"),
    *(
        Flag(name, kind, default, "", hidden=True)
        for name, kind, default in (
            ("vmodule", Kind.TEXT, ""),
            ("logtostderr", Kind.TRUTH, True),
            ("alsologtostderr", Kind.TRUTH, False),
            ("stderrthreshold", Kind.TEXT, ""),
            ("log-dir", Kind.TEXT, ""),
            ("log-file", Kind.TEXT, ""),
            ("log-file-max-size", Kind.WHOLE, 0),
            ("log-backtrace-at", Kind.TEXT, ""),
            ("log-flush-frequency", Kind.DURATION, 5.0),
            ("log-json-info-buffer-size", Kind.TEXT, ""),
            ("log-json-split-stream", Kind.TRUTH, False),
            ("log-text-info-buffer-size", Kind.TEXT, ""),
            ("log-text-split-stream", Kind.TRUTH, False),
            ("logging-format", Kind.TEXT, "text"),
            ("skip-headers", Kind.TRUTH, False),
            ("skip-log-headers", Kind.TRUTH, False),
            ("add-dir-header", Kind.TRUTH, False),
            ("one-output", Kind.TRUTH, False),
            ("automaxprocs", Kind.TRUTH, False),
        )
    ),
)
VERSION = (
    Flag("version", Kind.TRUTH, False, "Print the version and exit"),
    Flag("help", Kind.TRUTH, False, "Print this text and exit"),
    Flag("h", Kind.TRUTH, False, "", hidden=True),
)
CLIENT = (
    Flag("kubeconfig", Kind.TEXT, "", "A kubeconfig file; empty takes the pod's service account"),
    Flag("kube-api-qps", Kind.NUMBER, 0.0, "Most API requests per second; 0 leaves it to the API server"),
    Flag("kube-api-burst", Kind.WHOLE, 0, "Most API requests in a burst above kube-api-qps"),
)
WORK = (
    Flag("worker-threads", Kind.WHOLE, 10, "Objects that are worked on at once"),
    Flag("retry-interval-start", Kind.DURATION, 1.0, "First pause after an error; it doubles"),
    Flag("retry-interval-max", Kind.DURATION, 300.0, "Longest pause after errors"),
    Flag("resync-period", Kind.DURATION, 900.0, "How often everything is looked at anew; 0 is never"),
)
LEADER = (
    Flag("leader-election", Kind.TRUTH, False, "Act only while the lease is ours: needed for several replicas"),
    Flag("leader-election-namespace", Kind.TEXT, "", "Where the lease is; empty takes the pod's namespace"),
    Flag("leader-election-lease-duration", Kind.DURATION, 15.0, "Others may take over after so long"),
    Flag("leader-election-renew-deadline", Kind.DURATION, 10.0, "We stop acting after so long without a renewal"),
    Flag("leader-election-retry-period", Kind.DURATION, 5.0, "How often to renew or to look"),
)
SIDECAR = (
    Flag("leader-election-labels", Kind.TEXTS, (), "KEY:VALUE, labels that the lease gets while it is ours"),
    Flag("metrics-address", Kind.TEXT, "", "Deprecated: as http-endpoint"),
)
"""What upstream's sidecars have in common beside LEADER and HTTP."""
HTTP = (
    Flag("http-endpoint", Kind.TEXT, "", "HOST:PORT or :PORT for metrics and health; empty for none"),
    Flag("metrics-path", Kind.TEXT, "/metrics", "Path of the metrics"),
)
OWNERS = (
    Flag("forget-field-owners", Kind.TRUTH, False, "Have the server drop managedFields: a fifth less of its CPU"),
)
"""Ours, for whoever writes VolumeSnapshots or contents."""
NAMING = (
    Flag("snapshot-name-prefix", Kind.TEXT, "snapshot", "What the names of snapshots on the backend begin with"),
    Flag("snapshot-name-uuid-length", Kind.WHOLE, -1, "How much of the uid is in a name, without dashes; -1 for all"),
    Flag("extra-create-metadata", Kind.TRUTH, False, "Tell the driver the names of a new snapshot's objects"),
)


GROUP_NAMING = (
    Flag("groupsnapshot-name-prefix", Kind.TEXT, "groupsnapshot", "What the names of group snapshots begin with"),
    Flag("groupsnapshot-name-uuid-length", Kind.WHOLE, -1, "As snapshot-name-uuid-length, of group snapshots"),
)
CONTENTS = (
    Flag("retry-crd-interval-max", Kind.DURATION, 30.0, "Longest pause between looks for a kind that is missing"),
    Flag(
        "prevent-volume-mode-conversion",
        Kind.TRUTH,
        True,
        "Note the source's volume mode in new contents, so that a restore cannot change it by accident",
    ),
)
"""What upstream's controller has for the making of contents."""


def group_naming(given: Given) -> Naming:
    """The names of group snapshots, from NAMING and GROUP_NAMING. InvalidError names a bad flag."""
    prefix, length = name_parts(given, "groupsnapshot")
    return Naming(prefix, length, given.truth("extra-create-metadata"))


def naming(given: Given) -> dict[str, object]:
    """The fields of the settings from NAMING. InvalidError names a bad flag."""
    prefix, length = name_parts(given, "snapshot")
    return {
        "snapshot_name_prefix": prefix,
        "snapshot_name_uuid_length": length,
        "extra_create_metadata": given.truth("extra-create-metadata"),
    }


def name_parts(given: Given, kind: str) -> tuple[str, int]:
    """Prefix and length of the uid in the names of snapshots or of groups. InvalidError names a bad flag."""
    prefix, length = given.text(f"{kind}-name-prefix"), given.whole(f"{kind}-name-uuid-length")
    if not prefix or len(prefix.encode()) > MOST_PREFIX:
        hint = f"Give 1 to {MOST_PREFIX} bytes"
        raise InvalidError(f"{prefix[:40]!r} is no prefix", field=f"--{kind}-name-prefix", hint=hint)
    if length != -1 and not 1 <= length <= MOST_UUID:
        raise InvalidError(
            f"{length} digits of a uid cannot tell snapshots apart",
            field=f"--{kind}-name-uuid-length",
            hint=f"Give -1 for the whole uid, or 1 to {MOST_UUID}",
        )
    return prefix, length


def http_address(given: Given) -> str:
    """Where the pages are served, from HTTP and SIDECAR. InvalidError when both flags name an address."""
    endpoint, metrics = given.text("http-endpoint"), given.text("metrics-address")
    if endpoint and metrics:
        hint = "Leave out --metrics-address: it is deprecated"
        raise InvalidError("http-endpoint is given too", field="--metrics-address", hint=hint)
    return endpoint or metrics


def lease_labels(given: Given) -> dict[str, str]:
    """The labels that SIDECAR asks for. InvalidError for what is no pair."""
    found = {}
    for item in given.texts("leader-election-labels"):
        key, colon, value = item.partition(":")
        if not key or not colon or ":" in value:
            field = "--leader-election-labels"
            raise InvalidError(
                f"{item!r} is no label", field=field, hint="Write KEY:VALUE, with commas between several"
            )
        found[key] = value
    return found


def settings(given: Given, **more: object) -> Settings:
    """The cluster's settings from CLIENT and LEADER. `more` are further fields.

    InvalidError names a bad flag: out of bounds, or one of WORK with which nothing, or all without a pause, is done.
    """
    _check_work(given)
    fields: dict[str, object] = {
        "kubeconfig": given.text("kubeconfig"),
        "in_cluster": not given.text("kubeconfig"),
        "api_qps": given.number("kube-api-qps"),
        "api_burst": given.whole("kube-api-burst"),
        "leader_election": given.truth("leader-election"),
        "lease_namespace": given.text("leader-election-namespace"),
        "lease_seconds": int(given.number("leader-election-lease-duration")),
        "renew_deadline_seconds": given.number("leader-election-renew-deadline"),
        "retry_seconds": given.number("leader-election-retry-period"),
        "lease_labels": lease_labels(given) if "leader-election-labels" in given.values else {},
        **more,
    }
    try:
        return Settings.model_validate(fields)
    except pydantic.ValidationError as error:
        raise _in_flags(error.errors()[0]) from None


_FLAGS = {
    "api_qps": "kube-api-qps",
    "api_burst": "kube-api-burst",
    "lease_namespace": "leader-election-namespace",
    "lease_seconds": "leader-election-lease-duration",
    "renew_deadline_seconds": "leader-election-renew-deadline",
    "retry_seconds": "leader-election-retry-period",
}


def _in_flags(error: Mapping[str, Any]) -> InvalidError:
    """The settings' complaint in the words of the command line."""
    where = error["loc"][0] if error["loc"] else ""
    text = str(error["msg"]).removeprefix("Value error, ")
    for field, flag in _FLAGS.items():
        text = re.sub(rf"\b{field}\b", f"--{flag}", text)
    return InvalidError(text, field=f"--{_FLAGS[where]}" if where in _FLAGS else str(where))


def _check_work(given: Given) -> None:
    for name, hint in (
        ("worker-threads", "Give 1 or more"),
        ("retry-interval-start", "Give a duration above 0, such as 1s"),
        ("retry-interval-max", "Give a duration above 0, such as 5m"),
        ("timeout", "Give a duration above 0, such as 60s"),
    ):
        if name in given.values and given.number(name) <= 0:
            raise InvalidError(f"{given.number(name):g} is too little", field=f"--{name}", hint=hint)


def resync_seconds(given: Given) -> float:
    """How often everything is looked at; a period of 0 is never, as upstream reads it."""
    return given.number("resync-period") or NEVER_SECONDS


def log_level(given: Given) -> str:
    """Our word for a verbosity."""
    return "debug" if given.whole("v") >= 5 else "info"


class Doubling:
    """The error back-off that WORK asks for."""

    def __init__(self, given: Given) -> None:
        self._first = given.number("retry-interval-start")
        self._most = given.number("retry-interval-max")

    def __call__(self, failures: int) -> float:
        """See bridge.ports.loop.RetrySchedule."""
        return 0.0 if failures <= 0 else min(self._first * 2.0 ** min(failures - 1, 30), self._most)
