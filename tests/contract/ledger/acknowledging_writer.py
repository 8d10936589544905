"""A process that writes without end and prints what was acknowledged. A test kills it. Run with a ledger URL."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

from bridge.ledger.opening import open_ledger
from tests.contract.ledger.samples import StoppedClock, entry, key, record


async def main(url: str) -> None:
    async with open_ledger(url, StoppedClock()) as ledger, asyncio.TaskGroup() as group:

        async def write(worker: int) -> None:
            number = 0
            while True:
                uid = f"{worker}-{number}"
                booked = await ledger.add(entry(uid))
                print(f"entry {uid} {booked.version}", flush=True)
                saved = await ledger.save(key(uid), record())
                print(f"record {uid} {saved.version}", flush=True)
                changed = await ledger.change(dataclasses.replace(booked, why="changed"))
                print(f"entry {uid} {changed.version}", flush=True)
                number += 1

        for worker in range(12):
            group.create_task(write(worker), name=f"write-{worker}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
