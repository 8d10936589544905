"""One route: what it takes, what it answers, and the function behind it. The OpenAPI page is made from these."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar

import pydantic
from aiohttp import web

from bridge.api import asks
from bridge.api.settings import ApiSettings
from bridge.ports.desk import Desk
from bridge.ports.identity import Caller

Q = TypeVar("Q", bound=asks.Query)
B = TypeVar("B")


@dataclasses.dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """One checked request. `ref` is the reference in the path, empty where there is none."""

    caller: Caller
    desk: Desk
    settings: ApiSettings
    request: web.Request
    query: Q
    body: B
    ref: str
    idempotency_key: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a document, with the route's status unless another is given."""

    document: pydantic.BaseModel | None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    raw: bytes = b""
    """JSON that is ready as it is, instead of a document."""


Handler = Callable[[Call[Any, Any]], Awaitable[Answer]]
H = TypeVar("H", bound=Callable[[Any], Awaitable[Answer]])


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    handler: Handler
    tag: str
    answer: type[pydantic.BaseModel] | None
    query: type[asks.Query] = asks.NoQuery
    body: type[asks.Body] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()
    """Statuses of its own, beside those that every route may answer."""
    keyed: bool = False
    """Takes `Idempotency-Key`."""
    slow: bool = False
    """A blocking query: it sets its own deadline."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.handler.__doc__ or "").strip().splitlines()[0]

    @property
    def name(self) -> str:
        """The operation's id in the OpenAPI page."""
        return getattr(self.handler, "__name__", "")

    @property
    def takes_ref(self) -> bool:
        """Whether the path holds a reference."""
        return "{ref}" in self.path


class Endpoints:
    """The routes of one module, in order, gathered by a decorator."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.all: list[Endpoint] = []

    def add(
        self, method: str, path: str, *, answer: type[pydantic.BaseModel] | None, **options: Any
    ) -> Callable[[H], H]:
        """Register the decorated function; `options` are the fields of `Endpoint`."""

        def register(handler: H) -> H:
            self.all.append(Endpoint(method, path, handler, self.tag, answer, **options))
            return handler

        return register
