"""Which blocks of a raw image hold data, and where two of them differ, read from the files themselves.

It must not trust anything but the bytes: holes come from the file system, differences from comparing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.localdisk import copy

BLOCK_BYTES = 4096
_READ_BYTES = 1 << 20


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def allocated(image: Path, start: int) -> Iterator[tuple[int, int]]:
    """The ranges that hold data, as (offset, end), from the block that holds `start`."""
    with _opened(image) as handle:
        size = os.fstat(handle).st_size
        yield from copy.data_ranges(handle, _aligned(start), size)


def delta(base: Path, target: Path, start: int) -> Iterator[tuple[int, int]]:
    """The ranges of `target` that differ from `base`, in whole blocks; what base lacks counts as zeros."""
    with _opened(base) as old, _opened(target) as new:
        size = os.fstat(new).st_size
        yield from joined(_differences(old, new, _aligned(start), size))


def _differences(old: int, new: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    for begin, end in _either(old, new, start, size):
        offset = begin
        while offset < end:
            count = min(_READ_BYTES, end - offset)
            left = os.pread(old, count, offset).ljust(count, b"\0")
            right = os.pread(new, count, offset)
            if left != right:
                for at in range(0, count, BLOCK_BYTES):
                    if left[at : at + BLOCK_BYTES] != right[at : at + BLOCK_BYTES]:
                        yield offset + at, min(offset + at + BLOCK_BYTES, size)
            offset += count


def _either(old: int, new: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Where at least one of the two has data, in whole blocks."""
    both = [*copy.data_ranges(old, start, size), *copy.data_ranges(new, start, size)]
    rounded = sorted((_aligned(b), min(-(-e // BLOCK_BYTES) * BLOCK_BYTES, size)) for b, e in both)
    yield from joined(rounded)


def joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Rising ranges with touching and overlapping ones made into one."""
    begin, end = -1, -1
    for left, right in ranges:
        if left > end:
            if end > begin:
                yield begin, end
            begin, end = left, right
        else:
            end = max(end, right)
    if end > begin:
        yield begin, end


def _aligned(offset: int) -> int:
    return offset // BLOCK_BYTES * BLOCK_BYTES
