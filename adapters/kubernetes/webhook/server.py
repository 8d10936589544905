"""The webhook's own HTTPS listener, with upstream's paths: two for the API server's questions, and pages of health.

It answers every question or says in one sentence why it cannot; nothing that is sent to it ends it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from adapters.kubernetes.decide import admission
from adapters.kubernetes.webhook import review
from adapters.kubernetes.webhook.certificate import LOOK_SECONDS, Certificate
from adapters.kubernetes.webhook.classes import DefaultClasses
from bridge.model import failure
from bridge.ports.clock import Clock

log = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024 * 1024
"""A question carries an object twice, and the API server takes objects of up to 3 MB."""
SHUTDOWN_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What upstream's flags say."""

    port: int = 443
    host: str = ""
    """Empty: every address of the pod."""
    volume_mode: bool = True
    """Whether a content's sourceVolumeMode is fixed (--prevent-volume-mode-conversion)."""
    groups: bool = False
    """Whether group snapshots are checked (--enable-volume-group-snapshot-webhook)."""

    @property
    def kinds(self) -> tuple[admission.Kind, ...]:
        """The kinds that are checked."""
        return tuple(kind for kind in admission.KINDS if self.groups or kind.group == admission.SNAPSHOT_GROUP)

    @property
    def classes(self) -> tuple[admission.Kind, ...]:
        """Those of them that know defaults."""
        return tuple(kind for kind in self.kinds if kind.default_mark)


class Webhook:
    """`run` serves until it is cancelled."""

    def __init__(
        self,
        options: Options,
        certificate: Certificate,
        classes: DefaultClasses,
        *,
        count: Callable[[str], None] = lambda _answer: None,
    ) -> None:
        """`count` hears of each answer: allowed, refused, unreadable or unknown."""
        self._options = options
        self._count = count
        self._certificate = certificate
        self._classes = classes
        self.port = 0
        """Where it listens, once it does."""

    def ready(self) -> str:
        """Empty when every question can be answered; else why not."""
        reasons = (self._classes.sentence(), "" if self.port else "it does not listen yet")
        return "; ".join(reason for reason in reasons if reason)

    async def run(self, clock: Clock, look_seconds: float = LOOK_SECONDS) -> None:
        """Listen, watch the classes and the certificate, until cancelled. InvalidError: the port cannot be had."""
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await self._listen(runner)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._classes.run(), name="webhook-classes")
                group.create_task(self._certificate.watch(clock, look_seconds), name="webhook-certificate")
        finally:
            self.port = 0
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        context = self._certificate.context
        site = web.TCPSite(runner, self._options.host or None, self._options.port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            raise failure.InvalidError(
                f"it cannot listen on port {self._options.port}: {error.strerror or error}",
                field="--port",
                hint="Choose a free port; one below 1024 needs root or CAP_NET_BIND_SERVICE",
            ) from error
        self.port = int(runner.addresses[0][1])
        log.info("the webhook listens", extra={"port": self.port})

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MOST_BYTES)
        snapshots = tuple(kind for kind in self._options.kinds if kind.group == admission.SNAPSHOT_GROUP)
        groups = tuple(kind for kind in self._options.kinds if kind.group == admission.GROUP_SNAPSHOT_GROUP)
        application.router.add_post("/volumesnapshot", self._handler(snapshots))
        application.router.add_post("/volumegroupsnapshot", self._handler(groups))
        application.router.add_get("/livez", self._live)
        application.router.add_get("/readyz", self._ready)
        return application

    def _handler(self, kinds: Sequence[admission.Kind]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            if request.content_type != "application/json":
                self._count("unreadable")
                return _text(415, f"Content-Type {request.content_type} is not taken here; send application/json")
            try:
                asked = review.parse(await request.read())
                refusals = self._refusals(asked, kinds)
            except review.ReviewError as error:
                self._count("unreadable")
                return _text(400, str(error))
            except failure.NotSyncedError as error:
                self._count("unknown")
                # The webhook's configuration says what is to happen then (failurePolicy).
                return _text(503, str(error))
            if refusals:
                log.info("refused", extra={"uid": asked.uid, "why": "; ".join(one.text for one in refusals)})
            self._count("refused" if refusals else "allowed")
            return web.Response(body=review.answer(asked.uid, refusals), content_type="application/json")

        return handle

    def _refusals(self, asked: review.Review, kinds: Sequence[admission.Kind]) -> list[admission.Refusal]:
        kind = asked.kind
        if kind is None or kind not in kinds or not asked.looked_at:
            return []
        found = admission.refusals(kind, asked.before, asked.after, volume_mode=self._options.volume_mode)
        if admission.becomes_default(kind, asked.before, asked.after):
            defaults = self._classes.of(kind, str(asked.after.get("driver") or ""))
            second = admission.second_default(kind, asked.after, defaults)
            found += [second] if second is not None else []
        return found

    async def _live(self, _request: web.Request) -> web.Response:
        return _text(200, "ok")

    async def _ready(self, _request: web.Request) -> web.Response:
        why = self.ready()
        trouble = self._certificate.trouble
        return _text(503, why) if why else _text(200, f"ok\n{trouble}" if trouble else "ok")


def _text(status: int, words: str) -> web.Response:
    return web.Response(status=status, text=words + "\n")
