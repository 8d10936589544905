"""Turns what the handlers raise into gRPC statuses, and logs each call: method, code and time, never contents."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from grpc import aio

from adapters.localdisk import failures

_log = logging.getLogger(__name__)


class Answers(aio.ServerInterceptor):
    """Wraps every handler of the server."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        method = details.method.rpartition("/")[2]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streamed(method, handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _answered(method, handler.unary_unary), handler.request_deserializer, handler.response_serializer
        )


def _answered(method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def behaviour(request: Any, context: Any) -> Any:
        began = time.perf_counter()
        try:
            answer = await inner(request, context)
        except Exception as error:  # noqa: BLE001 - a handler's error is the caller's answer
            await _refuse(method, began, error, context)
        _log.debug("%s OK %.4f s", method, time.perf_counter() - began)
        return answer

    return behaviour


def _streamed(
    method: str, inner: Callable[[Any, Any], AsyncIterator[Any]]
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
        began = time.perf_counter()
        try:
            async for answer in inner(request, context):
                yield answer
        except Exception as error:  # noqa: BLE001 - a handler's error is the caller's answer
            await _refuse(method, began, error, context)
        _log.debug("%s OK %.4f s", method, time.perf_counter() - began)

    return behaviour


async def _refuse(method: str, began: float, error: Exception, context: Any) -> NoReturn:
    if isinstance(error, aio.AbortError):
        raise error  # a handler that answered by itself, such as one that is not implemented
    if isinstance(error, NotImplementedError):
        raise error
    if isinstance(error, OSError):
        _log.error("%s failed: %s", method, error)
        error = failures.from_os_error(error)
    if isinstance(error, failures.DriverError):
        _log.info("%s %s %.4f s: %s", method, error.code.name, time.perf_counter() - began, error.text)
        await context.abort(error.code, error.text)
    _log.error("%s failed", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
    raise AssertionError("abort does not return")
