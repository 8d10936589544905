"""Secrets kept in Nomad variables: `nomadVar:NAMESPACE/PATH`. Values go to one call and are kept nowhere here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from adapters.nomad import errors
from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from bridge.model.failure import InvalidError, NotFoundError
from bridge.model.secret import SecretRef

SCHEME = "nomadVar"
_PATH = re.compile(r"[A-Za-z0-9_~/-]{1,128}")
"""What Nomad takes as a path. Anything else, such as `..` or `?`, would ask for something other than a variable."""


class NomadSecrets:
    """Resolves `nomadVar` references on one cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        """The variable's items. See `bridge.ports.secrets.Secrets`."""
        if not ref:
            return {}
        if ref.scheme != SCHEME:
            raise InvalidError(f"Nomad keeps no secrets of the scheme {ref.scheme!r}")
        namespace, slash, path = ref.locator.partition("/")
        if not slash or not namespace or _PATH.fullmatch(path) is None:
            raise InvalidError(
                f"{ref} does not say where the variable is", hint="write nomadVar:NAMESPACE/PATH", field="secret"
            )
        try:
            answer = await self._client.get(f"/v1/var/{path}", {"namespace": namespace})
        except AnswerError as error:
            if error.status == 404:
                raise NotFoundError(f"there is no Nomad variable {path!r} in the namespace {namespace!r}") from None
            raise errors.as_error(error, f"read the secret {ref}") from None
        items = (answer.data or {}).get("Items") or {}
        return {str(key): str(value) for key, value in items.items()}
