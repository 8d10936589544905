"""Free loopback TCP ports for servers that must be told their port before they start.

A port is taken from below the range that the kernel hands out by itself, so that no outgoing
connection can take it between this check and the server's own bind.
"""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 12_000, 31_999
_TRIES = 200
_issued: set[int] = set()
_choice = random.SystemRandom()


def free(address: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on at the address, and that this process did not get before."""
    for _ in range(_TRIES):
        port = _choice.randint(_FIRST, _LAST)
        if port not in _issued and _bindable(address, port):
            _issued.add(port)
            return port
    raise OSError(f"no free TCP port on {address} between {_FIRST} and {_LAST} after {_TRIES} tries")


def _bindable(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
