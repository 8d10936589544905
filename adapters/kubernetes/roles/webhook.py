"""`webhook`: the classic validation webhook, for clusters that want one. The snapshot kinds' own rules, over TLS."""

from __future__ import annotations

import asyncio

import prometheus_client

from adapters.kubernetes import connection
from adapters.kubernetes.client import Client
from adapters.kubernetes.flags import Flag, Given, Kind
from adapters.kubernetes.roles import upstream_flags as upstream
from adapters.kubernetes.settings import Settings
from adapters.kubernetes.webhook.certificate import Certificate
from adapters.kubernetes.webhook.classes import DefaultClasses
from adapters.kubernetes.webhook.server import Options, Webhook
from bridge.model.failure import InvalidError
from bridge.ports.role import Role, RolePlan, RoleSurroundings

FLAGS = (
    Flag("tls-cert-file", Kind.TEXT, "", "The certificate for HTTPS, with its chain behind it (PEM). Needed"),
    Flag("tls-private-key-file", Kind.TEXT, "", "The private key of tls-cert-file (PEM). Needed"),
    Flag("port", Kind.WHOLE, 443, "Port of the API server's questions"),
    Flag("bind-address", Kind.TEXT, "", "Address of the API server's questions; empty takes all of them"),
    Flag("kubeconfig", Kind.TEXT, "", "A kubeconfig file; empty takes the pod's service account"),
    Flag("prevent-volume-mode-conversion", Kind.TRUTH, True, "Whether a content's sourceVolumeMode is fixed"),
    Flag("enable-volume-group-snapshot-webhook", Kind.TRUTH, False, "Check the three kinds of group snapshots too"),
    *upstream.HTTP,
    *upstream.LOGGING,
    *upstream.VERSION,
)


def plan(given: Given) -> RolePlan:
    """The role that these flags ask for. InvalidError: there is no certificate to serve with."""
    for name in ("tls-cert-file", "tls-private-key-file"):
        if not given.text(name):
            raise InvalidError("the flag is needed", field=f"--{name}", hint="The API server calls by HTTPS only")
    kubeconfig = given.text("kubeconfig")
    settings = Settings(kubeconfig=kubeconfig, in_cluster=not kubeconfig)
    options = Options(
        port=given.whole("port"),
        host=given.text("bind-address"),
        volume_mode=given.truth("prevent-volume-mode-conversion"),
        groups=given.truth("enable-volume-group-snapshot-webhook"),
    )

    async def start(lent: RoleSurroundings) -> Role:
        files = given.text("tls-cert-file"), given.text("tls-private-key-file")
        certificate = await asyncio.to_thread(Certificate, *files)
        way = await connection.open_connection(settings)
        client = Client(way, timeout_seconds=settings.request_timeout_seconds)
        reviews = prometheus_client.Counter(
            "snapbridge_webhook_reviews", "Questions answered", ["answer"], registry=lent.meters
        )
        webhook = Webhook(
            options,
            certificate,
            DefaultClasses(client, options.classes),
            count=lambda answer: reviews.labels(answer).inc(),
        )

        async def run() -> None:
            try:
                await webhook.run(lent.clock)
            finally:
                await client.close()

        return Role(tasks={"webhook": run}, ready=webhook.ready)

    return RolePlan(
        name="webhook",
        start=start,
        http_address=given.text("http-endpoint"),
        metrics_path=given.text("metrics-path"),
        log_level=upstream.log_level(given),
    )
