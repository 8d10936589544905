"""Plugin calls through Nomad's own API, which calls the plugin's controller for us.

It uses the secrets that Nomad stores beside ours, works from anywhere, and is slow: one call at a time per plugin,
and every one of them holds up attaching and detaching (nomad.md 1.6). So this side keeps to one in flight too.
Nomad registers what it creates: a made volume stands under a passing id until `Volumes.register` gives it its name.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from adapters.nomad import errors, wire
from adapters.nomad.client import Answer, Client, part
from adapters.nomad.errors import AnswerError
from adapters.nomad.handles import Handles, VolumeId, read_volume
from bridge.model.failure import ElsewhereError, Failure, FailureKind, UnavailableError
from bridge.model.group import CutGroup
from bridge.model.outcome import Done, Failed, Outcome
from bridge.model.plugin import Capability, InstanceId, Role, Route
from bridge.model.snapshot import CutPage, CutSnapshot
from bridge.model.volume import MadeVolume, NewVolume
from bridge.ports.plugin import SecretMap

T = TypeVar("T")

CALL_SECONDS = 130.0
"""Nomad gives a controller call 2 minutes; ours must outlive its answer."""
_PAGE = 500
_MOST_PAGES = 10_000


def instance_name(cluster: str, plugin_id: str) -> str:
    """The registry's name of this route to a plugin."""
    return f"nomad-api:{cluster}:{plugin_id}"


class ApiCalls:
    """`PluginCalls` of one plugin id."""

    def __init__(self, cluster: str, client: Client, handles: Handles, *, plugin_id: str, driver: str) -> None:
        self._client = client
        self._handles = handles
        self._plugin_id = plugin_id
        self._id = InstanceId(driver, Role.CONTROLLER.value, instance_name(cluster, plugin_id))
        self._one = asyncio.Lock()
        self._fence: Callable[[], str] = lambda: ""

    @property
    def id(self) -> InstanceId:
        return self._id

    @property
    def route(self) -> Route:
        return Route.ORCHESTRATOR

    def under(self, fence: Callable[[], str]) -> ApiCalls:
        """See the port: asked when the calls before this one have ended."""
        found = copy.copy(self)
        found._fence = fence
        return found

    @property
    def plugin_id(self) -> str:
        """Nomad's name of the plugin."""
        return self._plugin_id

    async def drain(self) -> None:
        """Return when no call is under way. For the moment when the socket takes over."""
        async with self._one:
            return

    async def create_snapshot(
        self, *, name: str, volume_handle: str, parameters: Mapping[str, str], secrets: SecretMap
    ) -> Outcome[CutSnapshot]:
        """One snapshot per request: with several, an error would hide those that were made."""

        async def call() -> Outcome[CutSnapshot]:
            source = await self._registered(volume_handle)
            if source is None:
                why = f"no Nomad volume of {self._plugin_id!r} has the handle {volume_handle!r}"
                return _refused("NOT_FOUND", why, "register the volume with its external_id")
            item = {
                "SourceVolumeID": source.id, "PluginID": self._plugin_id, "Name": name,
                "Secrets": dict(secrets), "Parameters": dict(parameters),
            }  # fmt: skip
            answer = await self._client.call(
                "PUT", "/v1/volumes/snapshot", {"namespace": source.namespace}, body={"Snapshots": [item]},
                timeout_seconds=CALL_SECONDS,
            )  # fmt: skip
            rows = (answer.data or {}).get("Snapshots") or []
            if len(rows) != 1 or not rows[0].get("ID"):
                return _unsure("BAD_ANSWER", "Nomad said yes and named no snapshot")
            cut = wire.snapshot(rows[0])
            if cut.source_handle != volume_handle:
                return _unsure(
                    "WRONG_SOURCE", f"the snapshot {name!r} is of {cut.source_handle!r}, not of this volume"
                )
            return Done(cut)

        return await self._alone(call, secrets)

    async def _registered(self, handle: str) -> VolumeId | None:
        """An id that stands for this volume now. Nomad is told an id and not a handle, and an id that was listed
        before may have gone since, or stand for another volume: then another volume would be cut."""
        for known in await self._handles.of(self._plugin_id, handle):
            if wire.unreachable_id(known.id):
                continue  # only the list tells of it
            try:
                row = await read_volume(self._client, known.namespace, known.id)
            except AnswerError as error:
                if error.status != 404:
                    raise
                continue
            if row.get("PluginID") == self._plugin_id and wire.volume_handle(row) == handle:
                return known
        return next(iter(await self._handles.of(self._plugin_id, handle, fresh=True)), None)

    async def delete_snapshot(self, *, handle: str, secrets: SecretMap) -> Outcome[None]:
        """Nomad adds none of its stored secrets here; they must come from us."""
        header, trouble = wire.secrets_header(secrets)
        if trouble:
            return _refused("INVALID_ARGUMENT", trouble, "reach the plugin by its socket (route: socket)")

        async def call() -> Outcome[None]:
            await self._client.call(
                "DELETE", "/v1/volumes/snapshot", {"plugin_id": self._plugin_id, "snapshot_id": handle},
                headers=header, timeout_seconds=CALL_SECONDS,
            )  # fmt: skip
            return Done(None)

        return await self._alone(call, secrets)

    async def inspect_snapshot(self, *, handle: str, secrets: SecretMap) -> Outcome[CutSnapshot]:
        """Nomad passes no filter on, so this pages through the plugin's whole list.

        A list may move between its pages: "not found" is said after two lists without it, unless one page was all.
        """
        if (unable := await self._cannot(Capability.LIST_SNAPSHOTS)) is not None:
            return Failed(unable)
        for _ in range(2):
            count = 0
            async for outcome in self.list_snapshots(secrets=secrets):
                if isinstance(outcome, Failed):
                    return outcome
                count += 1
                if outcome.value.handle == handle:
                    return outcome
            if count < _PAGE:
                break
        return _refused("NOT_FOUND", f"the plugin {self._plugin_id!r} lists no snapshot {handle!r}")

    async def list_snapshots(
        self, *, volume_handle: str = "", secrets: SecretMap
    ) -> AsyncIterator[Outcome[CutSnapshot]]:
        """Every snapshot that the plugin holds; the volume is filtered here, as Nomad passes no filter on."""
        header, trouble = wire.secrets_header(secrets)
        if trouble:
            yield _refused("INVALID_ARGUMENT", trouble, "reach the plugin by its socket (route: socket)")
            return
        token = ""
        for _ in range(_MOST_PAGES):
            query = {"plugin_id": self._plugin_id, "per_page": str(_PAGE)} | ({"next_token": token} if token else {})
            page = await self._outcome(self._page(query, header), secrets)
            if isinstance(page, Failed):
                yield page
                return
            rows, following = page.value
            for cut in rows:
                if not volume_handle or cut.source_handle == volume_handle:
                    yield Done(cut)
            if not following:
                return
            if following == token:
                break
            token = following
        yield _unsure("BAD_ANSWER", f"the snapshot list of {self._plugin_id!r} does not end")

    async def page_snapshots(self, *, token: str, limit: int, secrets: SecretMap) -> Outcome[CutPage]:
        """One page of the plugin's list; Nomad hands the plugin's own token through."""
        if (unable := await self._cannot(Capability.LIST_SNAPSHOTS)) is not None:
            return Failed(unable)
        header, trouble = wire.secrets_header(secrets)
        if trouble:
            return _refused("INVALID_ARGUMENT", trouble, "reach the plugin by its socket (route: socket)")
        query = {"plugin_id": self._plugin_id, "per_page": str(limit)} | ({"next_token": token} if token else {})
        page = await self._outcome(self._page(query, header), secrets)
        return page if isinstance(page, Failed) else Done(CutPage(tuple(page.value[0]), page.value[1]))

    async def create_group(
        self, *, name: str, volume_handles: Sequence[str], parameters: Mapping[str, str], secrets: SecretMap
    ) -> Outcome[CutGroup]:
        """Nomad's API has no groups."""
        return _NO_GROUPS

    async def delete_group(self, *, handle: str, member_handles: Sequence[str], secrets: SecretMap) -> Outcome[None]:
        """Nomad's API has no groups."""
        return _NO_GROUPS

    async def inspect_group(
        self, *, handle: str, member_handles: Sequence[str], secrets: SecretMap
    ) -> Outcome[CutGroup]:
        """Nomad's API has no groups."""
        return _NO_GROUPS

    async def create_volume(self, *, new: NewVolume, secrets: SecretMap) -> Outcome[MadeVolume]:
        """Made and registered in one act, under a passing id in `made_namespace`.

        Nomad makes the storage before it looks at the namespace, so that is looked at first. Nomad's answer repeats
        the asked content source and not the plugin's own word for it: a repeat relies on the name being ours.
        """
        namespace = self._client.settings.made_namespace

        if new.mutable_parameters:
            return _NO_MUTABLE

        async def call() -> Outcome[MadeVolume]:
            await self._client.get(f"/v1/namespace/{part(namespace)}")
            row = wire.new_volume(new, self._plugin_id, namespace, secrets)
            answer = await self._client.call(
                "PUT", f"/v1/volume/csi/{part(row['ID'])}/create", {"namespace": namespace}, body={"Volumes": [row]},
                timeout_seconds=CALL_SECONDS,
            )  # fmt: skip
            rows = (answer.data or {}).get("Volumes") or []
            if len(rows) != 1 or not rows[0].get("ExternalID"):
                return _unsure("BAD_ANSWER", "Nomad said yes and named no volume")
            made = rows[0]
            if (made.get("SnapshotID") or "", made.get("CloneID") or "") != (
                row.get("SnapshotID", ""), row.get("CloneID", "")
            ):  # fmt: skip
                return _unsure("WRONG_SOURCE", f"the volume {new.name!r} was made from another source before")
            context = {str(k): str(v) for k, v in (made.get("Context") or {}).items()}
            return Done(MadeVolume(str(made["ExternalID"]), int(made.get("Capacity") or 0), context, new.content))

        return await self._alone(call, secrets)

    async def delete_volume(self, *, handle: str, secrets: SecretMap) -> Outcome[None]:
        """Only a registered volume can be deleted, and only a free one is: Nomad asks the plugin before it looks."""
        header, trouble = wire.secrets_header(secrets)
        if trouble:
            return _refused("INVALID_ARGUMENT", trouble, "reach the plugin by its socket (route: socket)")

        async def call() -> Outcome[None]:
            ids = await self._handles.of(self._plugin_id, handle, fresh=True)
            if not ids:
                passing = await self._register_to_delete(handle, header, secrets)
                if not isinstance(passing, VolumeId):
                    return passing
                ids = (passing,)
            for volume_id in ids:
                row = await read_volume(self._client, volume_id.namespace, volume_id.id)
                if claims := wire.users(row):
                    return _refused("FAILED_PRECONDITION", f"the volume {volume_id.id!r} is in use: {claims[0]}")
            first, *others = ids
            try:
                await self._client.call(
                    "DELETE", f"/v1/volume/csi/{part(first.id)}/delete", {"namespace": first.namespace},
                    headers=header, timeout_seconds=CALL_SECONDS,
                )  # fmt: skip
            except AnswerError as error:
                return Failed(errors.classify_delete_volume(error.status, error.text))
            for other in others:
                await self._client.call(
                    "DELETE", f"/v1/volume/csi/{part(other.id)}", {"namespace": other.namespace}
                )  # fmt: skip
            return Done(None)

        return await self._alone(call, secrets)

    async def _page(self, query: dict[str, str], header: dict[str, str]) -> Outcome[tuple[list[CutSnapshot], str]]:
        answer: Answer = await self._client.get(
            "/v1/volumes/snapshot", query, headers=header, timeout_seconds=CALL_SECONDS
        )
        body = answer.data or {}
        rows = [wire.snapshot(row) for row in body.get("Snapshots") or ()]
        return Done((rows, str(body.get("NextToken") or "")))

    async def _register_to_delete(
        self, handle: str, header: dict[str, str], secrets: SecretMap
    ) -> VolumeId | Outcome[None]:
        """A handle that Nomad does not know. Gone from the plugin's own list, it is deleted; else it is registered
        under a passing id that nobody claims, because Nomad deletes only what is registered.
        """
        token = ""
        for _ in range(_MOST_PAGES):
            query = {"plugin_id": self._plugin_id, "per_page": str(_PAGE)} | ({"next_token": token} if token else {})
            answer = await self._client.get(
                "/v1/volumes/external", query, headers=header, timeout_seconds=CALL_SECONDS
            )
            body = answer.data or {}
            if any(row.get("ExternalID") == handle for row in body.get("Volumes") or ()):
                break
            token = str(body.get("NextToken") or "")
            if not token:
                return Done(None)
        passing = VolumeId(self._client.settings.made_namespace, wire.made_id(f"delete-{wire.short(handle)}"))
        try:
            await self._client.call(
                "PUT", f"/v1/volume/csi/{part(passing.id)}", {"namespace": passing.namespace},
                body={"Volumes": [wire.to_delete(passing.id, passing.namespace, self._plugin_id, handle, secrets)]},
            )  # fmt: skip
        except AnswerError as error:
            failure = errors.classify(error.status, error.text)
            return _refused(
                "FAILED_PRECONDITION",
                f"the volume {handle!r} is not registered, and could not be, so Nomad's API cannot delete it: "
                f"{failure.message}",
                "register it under any id and try again",
            )
        return passing

    async def _cannot(self, capability: Capability) -> Failure | None:
        """Why the plugin cannot do this: nothing healthy to ask, or a healthy controller without it (A5)."""
        try:
            answer = await self._client.get(f"/v1/plugin/csi/{part(self._plugin_id)}")
        except AnswerError as error:
            return errors.classify(error.status, error.text)
        except UnavailableError as error:
            return Failure(FailureKind.UNSURE, "UNAVAILABLE", str(error))
        able = wire.capabilities(answer.data)
        if not able:
            return Failure(FailureKind.UNSURE, "UNAVAILABLE", f"{self._plugin_id!r} has no healthy controller")
        if capability not in able:
            return Failure(
                FailureKind.REFUSED, "UNIMPLEMENTED", f"the plugin {self._plugin_id!r} has no {capability.value}"
            )
        return None

    async def _alone(self, call: Callable[[], Awaitable[Outcome[T]]], secrets: SecretMap) -> Outcome[T]:
        async with self._one:
            if reason := self._fence():
                raise ElsewhereError(reason)
            return await self._outcome(call(), secrets)

    async def _outcome(self, call: Awaitable[Outcome[T]], secrets: SecretMap) -> Outcome[T]:
        """The call's outcome; errors become failures, and no text of them shows a secret."""
        try:
            return await call
        except AnswerError as error:
            failure = errors.classify(error.status, error.text)
            if (doubted := errors.doubted(error.text)) is not None:
                failure = await self._cannot(doubted) or failure
        except UnavailableError as error:
            failure = Failure(FailureKind.UNSURE, "UNAVAILABLE", str(error))
        return Failed(_without(failure, secrets))


def _without(failure: Failure, secrets: SecretMap) -> Failure:
    message = failure.message
    for value in sorted(secrets.values(), key=len, reverse=True):
        if len(value) >= 4:
            message = message.replace(value, "***stripped***")
    return Failure(failure.kind, failure.code, message, failure.hint)


def _refused(code: str, message: str, hint: str = "") -> Failed:
    return Failed(Failure(FailureKind.REFUSED, code, message, hint))


def _unsure(code: str, message: str) -> Failed:
    return Failed(Failure(FailureKind.UNSURE, code, message))


_NO_MUTABLE = _refused(
    "UNIMPLEMENTED",
    "mutable parameters of a new volume do not go through Nomad's API",
    "reach the plugin by its socket (route: socket)",
)
_NO_GROUPS = _refused(
    "UNIMPLEMENTED", "Nomad's API has no group snapshots", "reach the plugin by its socket (route: socket)"
)
