"""What can go wrong between the command line and the service. Light: imported by every command."""

from __future__ import annotations

from typing import Any

from bridge.cli import exits
from bridge.ports.commands import RefusedError, UnreachedError

Json = dict[str, Any]


class LostError(UnreachedError):
    """The connection could not be made or broke. `sentence` and `hint` are for people."""


class ProblemError(RefusedError):
    """The service refused. `document` is its RFC 9457 problem."""

    def stop(self) -> exits.Stop:
        """The end of the command that this means."""
        detail = str(self.document.get("detail") or f"the service answered {self.status}")
        lines = [detail]
        errors = self.document.get("errors") or []
        if len(errors) > 1:
            lines += [f"  {item['field']}: {item['message']}" + _hinted(item.get("hint", "")) for item in errors]
        hint = "" if len(errors) > 1 else str(self.document.get("hint") or "")
        if self.status == 401:
            hint = "name a token file with --token-file or SNAPBRIDGE_TOKEN_FILE, or a client certificate"
        if self.status >= 500 and self.document.get("requestId"):
            lines.append(f"  request {self.document['requestId']}")
        return exits.Stop("\n".join(lines), hint=hint, code=exits.of_status(self.status))


def _hinted(hint: str) -> str:
    return f" ({hint})" if hint else ""
