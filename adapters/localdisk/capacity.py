"""How large a volume becomes: pure arithmetic over what was asked for and what its source needs."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.localdisk import failures

DEFAULT_BYTES = 1 << 30
ALIGNMENT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """A capacity range in bytes; 0 leaves that side open."""

    required_bytes: int = 0
    limit_bytes: int = 0

    def __post_init__(self) -> None:
        if self.required_bytes < 0 or self.limit_bytes < 0:
            failures.invalid("capacity_range: sizes must not be negative")
        if self.limit_bytes and self.limit_bytes < self.required_bytes:
            failures.invalid(
                f"capacity_range: limit_bytes {self.limit_bytes} is below required_bytes {self.required_bytes}"
            )

    def fits(self, size_bytes: int) -> bool:
        return size_bytes >= self.required_bytes and (not self.limit_bytes or size_bytes <= self.limit_bytes)


def choose(wanted: Wanted, *, smallest_bytes: int, source_bytes: int, largest_bytes: int) -> int:
    """The capacity of a new volume. `source_bytes` is 0 for an empty one. Raises OUT_OF_RANGE."""
    if source_bytes and wanted.required_bytes and wanted.required_bytes < source_bytes:
        failures.out_of_range(
            f"capacity_range: required_bytes {wanted.required_bytes} is less than the source's {source_bytes}: "
            f"ask for at least that"
        )
    floor = max(wanted.required_bytes or source_bytes or min(DEFAULT_BYTES, wanted.limit_bytes or DEFAULT_BYTES), 1)
    size = -(-max(floor, smallest_bytes) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    if wanted.limit_bytes and size > wanted.limit_bytes:
        failures.out_of_range(
            f"capacity_range: at least {size} bytes are needed, limit_bytes is {wanted.limit_bytes}"
        )
    if size > largest_bytes:
        failures.out_of_range(f"capacity_range: {size} bytes are more than the whole disk has ({largest_bytes})")
    return size
