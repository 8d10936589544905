"""Secrets by reference: `k8s:NAMESPACE/NAME`, read at the call and kept nowhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from adapters.kubernetes import names
from adapters.kubernetes.client import Client
from adapters.kubernetes.problem import ApiError
from bridge.model.failure import InvalidError, NotFoundError, UnavailableError
from bridge.model.secret import SecretRef

SCHEME = "k8s"


class ClusterSecrets:
    """The `Secrets` port for this cluster's Secret objects."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        """The secret's map. No error shows a value."""
        if not ref:
            return {}
        namespace, slash, name = ref.locator.partition("/")
        if ref.scheme != SCHEME or not slash or not namespace or not name or "/" in name:
            raise InvalidError(f"{ref} is not k8s:NAMESPACE/NAME", field="secret")
        try:
            secret = await self._client.get(names.SECRETS, namespace, name)
        except ApiError as error:
            if error.missing:
                raise NotFoundError(f"the secret {namespace}/{name} does not exist", hint="Create it") from None
            hint = "Allow this service account to get it" if error.status == 403 else ""
            raise UnavailableError(
                f"the secret {namespace}/{name} cannot be read: {error.status} {error.reason}", hint=hint
            ) from None
        values = {}
        for key, value in (secret.get("data") or {}).items():
            try:
                values[key] = base64.b64decode(value, validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError, TypeError):
                raise InvalidError(f"key {key!r} of the secret {namespace}/{name} is not text") from None
        return values
