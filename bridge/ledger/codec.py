"""Model dataclasses to JSON text and back, strictly: what is not understood is refused, never dropped.

Works for frozen dataclasses of strings, numbers, enums, tuples, mappings of strings, optional values and unions of
dataclasses (those are tagged by class name). It must not know any model class by name.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
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
    """The two directions for one type. Each takes the value and the path that an error names."""

    encode: Callable[[Any, str], Any]
    decode: Callable[[Any, str], Any]


def dumps(value: Any) -> str:
    """The JSON text of a dataclass. InvalidError names the field that cannot be stored."""
    return orjson.dumps(_codec_of(type(value)).encode(value, type(value).__name__.lower())).decode()


def loads(kind: type[T], text: str) -> T:
    """The dataclass that `dumps` wrote. InvalidError when the text is not exactly one of these."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidError(f"the ledger holds a damaged {kind.__name__}: {error}") from error
    value: T = _codec_of(kind).decode(data, kind.__name__.lower())
    return value


def dumps_map(value: Mapping[str, str], path: str) -> str:
    """The JSON text of a mapping of strings."""
    return orjson.dumps(_STRING_MAP.encode(value, path)).decode()


def loads_map(text: str, path: str) -> Mapping[str, str]:
    """The mapping of strings that `dumps_map` wrote."""
    value: Mapping[str, str] = _STRING_MAP.decode(orjson.loads(text), path)
    return value


def text(value: str, path: str) -> str:
    """The text itself, if a store can keep it: no NUL byte, no lone surrogate."""
    if not isinstance(value, str):
        raise InvalidError(f"{path} is a {type(value).__name__}; want a text", field=path)
    if "\x00" in value:
        raise InvalidError(f"{path} contains a NUL byte", hint="Remove it.", field=path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidError(f"{path} is not valid Unicode", hint="Write it as UTF-8.", field=path) from None
    return value


def _number(value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"{path} is a {type(value).__name__}; want a whole number", field=path)
    if abs(value) > _INT64_MAX:
        raise InvalidError(f"{path} does not fit in 64 bits", field=path)
    return value


def _float(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidError(f"{path} is a {type(value).__name__}; want a number", field=path)
    if not math.isfinite(value):
        raise InvalidError(f"{path} is not a finite number", field=path)
    return float(value)


def _truth(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidError(f"{path} is a {type(value).__name__}; want true or false", field=path)
    return value


_PLAIN: dict[object, _Codec] = {
    str: _Codec(text, text),
    int: _Codec(_number, _number),
    float: _Codec(_float, _float),
    bool: _Codec(_truth, _truth),
}


_KNOWN: dict[Any, _Codec] = dict(_PLAIN)


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
    return _Codec(
        lambda value, path: None if value is None else inner.encode(value, path),
        lambda data, path: None if data is None else inner.decode(data, path),
    )


def _tagged(kinds: tuple[type, ...]) -> _Codec:
    by_name = {kind.__name__: _codec_of(kind) for kind in kinds}

    def encode(value: Any, path: str) -> Any:
        codec = by_name.get(type(value).__name__)
        if codec is None:
            raise InvalidError(f"{path} is a {type(value).__name__}; want {' or '.join(by_name)}", field=path)
        return {_TAG: type(value).__name__, **codec.encode(value, path)}

    def decode(data: Any, path: str) -> Any:
        rest = dict(data) if isinstance(data, dict) else {}
        codec = by_name.get(rest.pop(_TAG, ""))
        if codec is None:
            raise InvalidError(f"{path} is none of {', '.join(by_name)}", field=path)
        return codec.decode(rest, path)

    return _Codec(encode, decode)


def _row(inner: _Codec) -> _Codec:
    def decode(data: Any, path: str) -> Any:
        if not isinstance(data, list):
            raise InvalidError(f"{path} is a {type(data).__name__}; want a list", field=path)
        return tuple(inner.decode(item, f"{path}[{index}]") for index, item in enumerate(data))

    return _Codec(
        lambda value, path: [inner.encode(item, f"{path}[{index}]") for index, item in enumerate(value)], decode
    )


def _map(key: _Codec, inner: _Codec) -> _Codec:
    def convert(value: Any, path: str, *, encode: bool) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise InvalidError(f"{path} is a {type(value).__name__}; want a mapping", field=path)
        if encode:
            return {key.encode(k, path): inner.encode(v, f"{path}.{k}") for k, v in value.items()}
        return {key.decode(k, path): inner.decode(v, f"{path}.{k}") for k, v in value.items()}

    return _Codec(functools.partial(convert, encode=True), functools.partial(convert, encode=False))


def _enum(kind: type[enum.Enum]) -> _Codec:
    def encode(value: Any, path: str) -> Any:
        if not isinstance(value, kind):
            raise InvalidError(f"{path} is a {type(value).__name__}; want a {kind.__name__}", field=path)
        return value.value

    def decode(data: Any, path: str) -> Any:
        try:
            return kind(data)
        except ValueError:
            raise InvalidError(f"{path} is {data!r}, which is no {kind.__name__}", field=path) from None

    return _Codec(encode, decode)


def _dataclass(kind: type) -> _Codec:
    hints = typing.get_type_hints(kind)
    fields = [(f.name, _codec_of(hints[f.name])) for f in dataclasses.fields(kind)]
    known = dict(fields)
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def encode(value: Any, path: str) -> Any:
        if type(value) is not kind:
            raise InvalidError(f"{path} is a {type(value).__name__}; want a {kind.__name__}", field=path)
        return {name: codec.encode(getattr(value, name), f"{path}.{name}") for name, codec in fields}

    def decode(data: Any, path: str) -> Any:
        if not isinstance(data, dict):
            raise InvalidError(f"{path} is a {type(data).__name__}; want a mapping", field=path)
        strange = data.keys() - known.keys()
        missing = required - data.keys()
        if strange or missing:
            what = f"unknown: {', '.join(sorted(strange))}" if strange else f"missing: {', '.join(sorted(missing))}"
            raise InvalidError(f"{path} is not a {kind.__name__} of this version ({what})", field=path)
        values = {name: known[name].decode(item, f"{path}.{name}") for name, item in data.items()}
        try:
            return kind(**values)
        except ValueError as error:
            raise InvalidError(f"{path} is not valid: {error}", field=path) from error

    return _Codec(encode, decode)


_STRING_MAP = _codec_of(Mapping[str, str])
