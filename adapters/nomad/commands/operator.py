"""The operator's own way to Nomad, as the `nomad` command has it: NOMAD_ADDR, NOMAD_TOKEN and their kin.

Verification of certificates is always on. It must not know the service's own token or settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pydantic

from adapters.nomad import errors
from adapters.nomad.client import Client
from adapters.nomad.errors import AnswerError
from adapters.nomad.settings import Settings
from bridge.model.failure import BridgeError, ConflictError, DeniedError, InvalidError, NotFoundError
from bridge.ports.commands import Exit, Json, StopError

DEFAULT_ADDRESS = "http://127.0.0.1:4646"
TOKEN = "NOMAD_TOKEN"
CALL_SECONDS = 60.0
_CODES: Mapping[type[BridgeError], Exit] = {
    NotFoundError: Exit.NOT_FOUND,
    ConflictError: Exit.CONFLICT,
    DeniedError: Exit.DENIED,
    InvalidError: Exit.USAGE,
}


class Operator:
    """Calls to one agent, each to its end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        tls = {
            "ca_file": environ.get("NOMAD_CACERT", ""),
            "cert_file": environ.get("NOMAD_CLIENT_CERT", ""),
            "key_file": environ.get("NOMAD_CLIENT_KEY", ""),
            "server_name": environ.get("NOMAD_TLS_SERVER_NAME", ""),
        }
        values = {
            "address": environ.get("NOMAD_ADDR") or DEFAULT_ADDRESS,
            "region": environ.get("NOMAD_REGION", ""),
            "token_env": TOKEN if environ.get(TOKEN) else "",
            "tls": tls,
        }
        try:
            self._settings = Settings.model_validate(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise StopError(
                f"NOMAD_ADDR or its kin cannot be used: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                code=Exit.USAGE,
            ) from None
        self.namespace = environ.get("NOMAD_NAMESPACE", "")

    def get(self, path: str, query: Mapping[str, str], what: str) -> Any:
        """Read. StopError."""
        return self.call("GET", path, query, None, what)

    def find(self, path: str, query: Mapping[str, str], what: str) -> Json | None:
        """Read what may be missing."""
        try:
            return dict(self._answer("GET", path, query, None))
        except AnswerError as error:
            if error.status == 404:
                return None
            raise _stop(errors.as_error(error, what)) from None
        except BridgeError as error:
            raise _stop(error) from None

    def call(self, method: str, path: str, query: Mapping[str, str], body: Json | None, what: str) -> Any:
        """One call. StopError with the exit code that its failure means."""
        try:
            return self._answer(method, path, query, body)
        except AnswerError as error:
            raise _stop(errors.as_error(error, what)) from None
        except BridgeError as error:
            raise _stop(error) from None

    def _answer(self, method: str, path: str, query: Mapping[str, str], body: Json | None) -> Any:
        async def once() -> Any:
            client = Client(self._settings)
            try:
                return (await client.call(method, path, query, body=body, timeout_seconds=CALL_SECONDS)).data
            finally:
                await client.close()

        return asyncio.run(once())


def _stop(error: BridgeError) -> StopError:
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), Exit.FAILED)
    return StopError(error.message, hint=error.hint, code=code)
