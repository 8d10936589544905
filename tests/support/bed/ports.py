"""Free loopback TCP ports for servers that must be told their port before they start.

A port is taken from below the range that the kernel hands out by itself, so that no outgoing
connection can take it between this check and the server's own bind. The processes of one test run
(pytest-xdist) choose from parts of their own, so that none takes what another was given a moment ago. Each port is
claimed by a name that one process alone can hold, so that no other run on this machine takes it while this one lives.
"""

from __future__ import annotations

import os
import random
import socket

_FIRST, _LAST = 12_000, 31_999
_TRIES = 200
_issued: set[int] = set()
_choice = random.SystemRandom()


def free(address: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on at the address, and that this process did not get before."""
    for _ in range(_TRIES):
        port = _choice.choice(_mine())
        if port not in _issued and _bindable(address, port) and _claimed(port):
            _issued.add(port)
            return port
    raise OSError(f"no free TCP port on {address} between {_FIRST} and {_LAST} after {_TRIES} tries")


def _mine() -> range:
    """This process's part of the ports: all of them where it is the only one."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", ""), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "")
    if not (worker.removeprefix("gw").isdecimal() and workers.isdecimal()):
        return range(_FIRST, _LAST + 1)
    return range(_FIRST + int(worker.removeprefix("gw")), _LAST + 1, int(workers))


def _claimed(port: int) -> bool:
    """Hold the port's abstract socket name until this process ends, however it ends."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0snapbridge-test-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()
    return True


def _bindable(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
