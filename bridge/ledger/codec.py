"""Model dataclasses to JSON text and back, strictly: what is not understood is refused, never dropped.

Works for frozen dataclasses of strings, numbers, enums, tuples, mappings of strings, optional values and unions of
dataclasses (those are tagged by class name). It must not know any model class by name.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from bridge.model.failure import InvalidError

T = TypeVar("T")
_INT64_MAX = 2**63 - 1
_TAG = "is"


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """The two directions for one type. Both raise _Trouble."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


class _Trouble(Exception):
    """A value that does not fit. The place is put together on the way out, so that good values pay nothing for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.place = ""

    def at(self, place: str) -> _Trouble:
        """The same, one step further out."""
        self.place = place + self.place
        return self

    def error(self, name: str) -> InvalidError:
        """For the outside."""
        field = name + self.place
        return InvalidError(f"{field} {self.message}", field=field)


def dumps(value: Any) -> str:
    """The JSON text of a dataclass. InvalidError names the field that cannot be stored."""
    try:
        return orjson.dumps(_codec_of(type(value)).encode(value)).decode()
    except _Trouble as trouble:
        raise trouble.error(type(value).__name__.lower()) from None


def loads(kind: type[T], text: str) -> T:
    """The dataclass that `dumps` wrote. InvalidError when the text is not exactly one of these."""
    try:
        value: T = _codec_of(kind).decode(orjson.loads(text))
    except orjson.JSONDecodeError as error:
        raise InvalidError(f"the ledger holds a damaged {kind.__name__}: {error}") from error
    except _Trouble as trouble:
        raise trouble.error(kind.__name__.lower()) from None
    return value


def dumps_map(value: Mapping[str, str], name: str) -> str:
    """The JSON text of a mapping of strings."""
    try:
        return orjson.dumps(_codec_of(Mapping[str, str]).encode(value)).decode()
    except _Trouble as trouble:
        raise trouble.error(name) from None


def loads_map(text: str, name: str) -> Mapping[str, str]:
    """The mapping of strings that `dumps_map` wrote."""
    try:
        value: Mapping[str, str] = _codec_of(Mapping[str, str]).decode(orjson.loads(text))
    except _Trouble as trouble:
        raise trouble.error(name) from None
    return value


def text(value: str, name: str) -> str:
    """The text itself, if a store can keep it: no NUL byte, no lone surrogate. InvalidError names it."""
    try:
        return _text(value)
    except _Trouble as trouble:
        raise trouble.error(name) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Trouble(f"is a {type(value).__name__}; want a text")
    if "\x00" in value:
        raise _Trouble("contains a NUL byte; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Trouble("is not valid Unicode; write it as UTF-8") from None
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Trouble(f"is a {type(value).__name__}; want a whole number")
    if abs(value) > _INT64_MAX:
        raise _Trouble("does not fit in 64 bits")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Trouble(f"is a {type(value).__name__}; want a number")
    if not math.isfinite(value):
        raise _Trouble("is not a finite number")
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Trouble(f"is a {type(value).__name__}; want true or false")
    return value


_KNOWN: dict[Any, _Codec] = {
    str: _Codec(_text, _text),
    int: _Codec(_number, _number),
    float: _Codec(_float, _float),
    bool: _Codec(_truth, _truth),
}


def _codec_of(kind: Any) -> _Codec:
    """The codec of one annotation, made once. TypeError for a kind of field that the ledger has no form for."""
    codec = _KNOWN.get(kind)
    if codec is None:
        codec = _KNOWN[kind] = _make_codec(kind)
    return codec


def _make_codec(kind: Any) -> _Codec:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _row(_codec_of(arguments[0]))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _map(_codec_of(arguments[0]), _codec_of(arguments[1]))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _enum(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    raise TypeError(f"the ledger cannot store a field of type {kind!r}")


def _union(arguments: tuple[Any, ...]) -> _Codec:
    rest = tuple(a for a in arguments if a is not type(None))
    inner = _codec_of(rest[0]) if len(rest) == 1 else _tagged(rest)
    if len(rest) == len(arguments):
        return inner
    encode, decode = inner.encode, inner.decode
    return _Codec(
        lambda value: None if value is None else encode(value),
        lambda data: None if data is None else decode(data),
    )


def _tagged(kinds: tuple[type, ...]) -> _Codec:
    by_name = {kind.__name__: _codec_of(kind) for kind in kinds}

    def encode(value: Any) -> Any:
        codec = by_name.get(type(value).__name__)
        if codec is None:
            raise _Trouble(f"is a {type(value).__name__}; want {' or '.join(by_name)}")
        return {_TAG: type(value).__name__, **codec.encode(value)}

    def decode(data: Any) -> Any:
        rest = dict(data) if isinstance(data, dict) else {}
        tag = rest.pop(_TAG, None)
        codec = by_name.get(tag) if isinstance(tag, str) else None
        if codec is None:
            raise _Trouble(f"is none of {', '.join(by_name)}")
        return codec.decode(rest)

    return _Codec(encode, decode)


def _row(inner: _Codec) -> _Codec:
    def each(values: Any, convert: Callable[[Any], Any]) -> list[Any]:
        found: list[Any] = []
        try:
            for item in values:
                found.append(convert(item))
        except _Trouble as trouble:
            raise trouble.at(f"[{len(found)}]") from None
        return found

    def decode(data: Any) -> Any:
        if not isinstance(data, list):
            raise _Trouble(f"is a {type(data).__name__}; want a list")
        return tuple(each(data, inner.decode))

    return _Codec(lambda value: each(value, inner.encode), decode)


def _map(key: _Codec, inner: _Codec) -> _Codec:
    def convert(value: Any, of_key: Callable[[Any], Any], of_value: Callable[[Any], Any]) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise _Trouble(f"is a {type(value).__name__}; want a mapping")
        found: dict[Any, Any] = {}
        for name, item in value.items():
            word = of_key(name)
            try:
                found[word] = of_value(item)
            except _Trouble as trouble:
                raise trouble.at(f".{name}") from None
        return found

    return _Codec(
        lambda value: convert(value, key.encode, inner.encode),
        lambda data: convert(data, key.decode, inner.decode),
    )


def _enum(kind: type[enum.Enum]) -> _Codec:
    by_value = {member.value: member for member in kind}

    def encode(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _Trouble(f"is a {type(value).__name__}; want a {kind.__name__}")
        return value.value

    def decode(data: Any) -> Any:
        member = by_value.get(data) if isinstance(data, str) else None
        if member is None:
            raise _Trouble(f"is {data!r}, which is no {kind.__name__}")
        return member

    return _Codec(encode, decode)


def _dataclass(kind: type) -> _Codec:
    hints = typing.get_type_hints(kind)
    known = {f.name: _codec_of(hints[f.name]) for f in dataclasses.fields(kind)}
    encoders = [(name, codec.encode) for name, codec in known.items()]
    decoders = {name: codec.decode for name, codec in known.items()}
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def encode(value: Any) -> Any:
        if type(value) is not kind:
            raise _Trouble(f"is a {type(value).__name__}; want a {kind.__name__}")
        found: dict[str, Any] = {}
        name = ""
        try:
            for name, convert in encoders:
                found[name] = convert(getattr(value, name))
        except _Trouble as trouble:
            raise trouble.at(f".{name}") from None
        return found

    def decode(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _Trouble(f"is a {type(data).__name__}; want a mapping")
        strange, missing = data.keys() - decoders.keys(), required - data.keys()
        if strange or missing:
            what = f"unknown: {', '.join(sorted(strange))}" if strange else f"missing: {', '.join(sorted(missing))}"
            raise _Trouble(f"is not a {kind.__name__} of this version ({what})")
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, item in data.items():
                values[name] = decoders[name](item)
        except _Trouble as trouble:
            raise trouble.at(f".{name}") from None
        try:
            return kind(**values)
        except ValueError as error:
            raise _Trouble(f"is not valid: {error}") from error

    return _Codec(encode, decode)
