"""The errors that a caller of the driver may see, each with its gRPC code.

It must not decide anything: it only carries the code from the plain logic to the thin gRPC handlers.
"""

from __future__ import annotations

import errno
from typing import NoReturn

import grpc

_BY_ERRNO = {
    errno.ENOSPC: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.EDQUOT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.EMFILE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.ENFILE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errno.ENOTEMPTY: grpc.StatusCode.FAILED_PRECONDITION,
    errno.EBUSY: grpc.StatusCode.FAILED_PRECONDITION,
}


class DriverError(Exception):
    """A call that cannot be done. `code` is what CSI asks for in this case; the text is for people."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def invalid(text: str) -> NoReturn:
    """The request itself is wrong."""
    raise DriverError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> NoReturn:
    """A volume, snapshot, group or path that was named does not exist."""
    raise DriverError(grpc.StatusCode.NOT_FOUND, text)


def already_exists(text: str) -> NoReturn:
    """The name is taken by something that differs from what was asked for."""
    raise DriverError(grpc.StatusCode.ALREADY_EXISTS, text)


def out_of_range(text: str) -> NoReturn:
    """A size or an offset cannot be had."""
    raise DriverError(grpc.StatusCode.OUT_OF_RANGE, text)


def precondition(text: str) -> NoReturn:
    """Something has to change before this can succeed."""
    raise DriverError(grpc.StatusCode.FAILED_PRECONDITION, text)


def exhausted(text: str) -> NoReturn:
    """No room, or not here."""
    raise DriverError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def aborted(text: str) -> NoReturn:
    """Another operation on the same object is under way."""
    raise DriverError(grpc.StatusCode.ABORTED, text)


def unimplemented(method: str) -> NoReturn:
    """The capability that stands for this method is not announced."""
    raise DriverError(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not offered by this driver")


def from_os_error(error: OSError) -> DriverError:
    """What a failed system call means to the caller."""
    code = _BY_ERRNO.get(error.errno or 0, grpc.StatusCode.INTERNAL)
    where = f": {error.filename}" if error.filename else ""
    name = errno.errorcode.get(error.errno or 0, "unknown")
    return DriverError(code, f"{error.strerror or error}{where} ({name})")
