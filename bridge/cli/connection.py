"""Where the service is and what is shown to it: options before environment before default. No secret in argv."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from bridge.cli.exits import USAGE, Stop

DEFAULT_ADDRESS = "http://127.0.0.1:7717"
VARIABLES = {
    "addr": "SNAPBRIDGE_ADDR",
    "token_file": "SNAPBRIDGE_TOKEN_FILE",
    "ca_file": "SNAPBRIDGE_CA_FILE",
    "cert_file": "SNAPBRIDGE_CERT_FILE",
    "key_file": "SNAPBRIDGE_KEY_FILE",
}
TOKEN_VARIABLE = "SNAPBRIDGE_TOKEN"


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """One place. `path` is set for a unix socket, `host` and `port` for the others."""

    text: str
    secure: bool = False
    host: str = "localhost"
    port: int = 0
    path: str = ""

    @property
    def is_this_host(self) -> bool:
        """Whether nothing leaves the host."""
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """All that is needed to call the service. `token` never appears in a message or a repr."""

    address: Address
    token: str = dataclasses.field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def parse_address(text: str) -> Address:
    """`http://HOST:PORT`, `https://…` or `unix:/PATH`. Stop with code 2 for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if path.startswith("/"):
            return Address(text, path=path)
        raise _bad_address(text)
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise _bad_address(text) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.username:
        raise _bad_address(text)
    secure = parts.scheme == "https"
    return Address(text, secure, parts.hostname, port or (443 if secure else 80))


def connect(options: Mapping[str, str | None], environ: Mapping[str, str] | None = None) -> Connection:
    """The connection that options and environment describe."""
    environ = os.environ if environ is None else environ
    found = {name: options.get(name) or environ.get(variable, "") for name, variable in VARIABLES.items()}
    address = parse_address(found["addr"] or DEFAULT_ADDRESS)
    token = _read_token(found["token_file"]) if found["token_file"] else environ.get(TOKEN_VARIABLE, "").strip()
    if not _fits_header(token):
        raise Stop("the token has characters that no token has", hint="put one token in it, on one line", code=USAGE)
    if token and not address.secure and not address.is_this_host:
        raise Stop(f"the token would go to {address.text} unencrypted", hint="use an https:// address", code=USAGE)
    if bool(found["cert_file"]) != bool(found["key_file"]):
        raise Stop("a client certificate needs its key", hint="give --cert-file and --key-file", code=USAGE)
    return Connection(address, token, found["ca_file"], found["cert_file"], found["key_file"])


def _read_token(path: str) -> str:
    import re

    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise Stop(f"the token file {path} cannot be read: {reason}", code=USAGE) from None
    words = next((found for line in lines if (found := re.split(r"(?:^|\s)#", line, maxsplit=1)[0].split())), [])
    if not words or not words[-1].isascii():
        raise Stop(f"the token file {path} holds no token", hint="put the token on its first line", code=USAGE)
    return words[-1]


def _fits_header(text: str) -> bool:
    """Whether HTTP can carry it. http.client would quote it in its error, and the token must not be shown."""
    return text.isascii() and text.isprintable() and " " not in text


def _bad_address(text: str) -> Stop:
    hint = "want http://HOST:PORT, https://HOST:PORT or unix:/PATH"
    return Stop(f"{text!r} is not an address of the service", hint=hint, code=USAGE)
