"""A CSI plugin whose cut takes a while, as a process of its own: what the Nomad bench measures against.

`python -m bench.slow_driver SECONDS` serves at $CSI_ENDPOINT until it is ended. Cuts run at the same time, as drivers
of arrays and clouds allow; nothing is kept on disk.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from bridge.pb.csi.v1 import csi_pb2 as pb
from tests.support import csi_server

DRIVER = "slow.csi.example"


class SlowPlugin(csi_server.Plugin):
    """The scripted plugin of the tests with a slow cut, and what Nomad asks of a monolith beside."""

    def __init__(self, seconds: float) -> None:
        super().__init__(DRIVER, node_id="n1")
        self._seconds = seconds

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Any) -> pb.CreateSnapshotResponse:
        if request.name not in self.store.names:
            await asyncio.sleep(self._seconds)
        return await super().CreateSnapshot(request, context)

    async def ValidateVolumeCapabilities(
        self, request: pb.ValidateVolumeCapabilitiesRequest, _context: Any
    ) -> pb.ValidateVolumeCapabilitiesResponse:
        confirmed = pb.ValidateVolumeCapabilitiesResponse.Confirmed(volume_capabilities=request.volume_capabilities)
        return pb.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)


async def main(seconds: float) -> None:
    path = os.environ["CSI_ENDPOINT"].removeprefix("unix://")
    server = await csi_server.start(SlowPlugin(seconds), Path(path))
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
