"""Types of single fields of requests: their limits, checks and sentences. No document lives here."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from bridge.api import times
from bridge.model.secret import SecretRef

NAME_LIMIT = 253
TEXT_LIMIT = 1024
MAP_LIMIT = 64
CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"
NAME_PATTERN = rf"^[^\s{CONTROL}/](?:[^{CONTROL}/]*[^\s{CONTROL}/])?$"
TEXT_PATTERN = rf"^[^{CONTROL}]*$"
_PAIR = rf"[^\s,={CONTROL}]+=[^,{CONTROL}]*"
SELECTOR_PATTERN = rf"^$|^{_PAIR}(?:,{_PAIR})*$"
DURATION_PATTERN = r"^(?:[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|s|m|h))+$"
_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))
_TEXT = re.compile(TEXT_PATTERN.replace("$", r"\Z"))
_SELECTOR = re.compile(SELECTOR_PATTERN.replace("$", r"\Z"))
TOKEN_PATTERN = r"^[!-~]*$"
_TOKEN = re.compile(r"[!-~]*\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")


def _plain_name(text: str) -> str:
    if text and not _NAME.match(text):
        raise ValueError("may not hold a slash or control characters, nor start or end with a space")
    return text


def _plain_text(text: str) -> str:
    if not _TEXT.match(text):
        raise ValueError("may not hold control characters")
    return text


def _token(text: str) -> str:
    if not _TOKEN.match(text):
        raise ValueError("is not one of ours: start without one")
    return text


def _secret(text: str) -> str:
    _plain_text(text)
    SecretRef.parse(text)
    return text


def _number(text: object) -> int:
    if not isinstance(text, str) or not _NUMBER.match(text):
        raise ValueError("must be a whole number")
    return int(text)


def _whole(value: object) -> object:
    """JSON has one kind of number: 5.0 is the integer 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flag(text: object) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _wait(text: str) -> str:
    times.parse_duration(text)
    return text


def _selector(text: str) -> str:
    if not _SELECTOR.match(text):
        raise ValueError("want key=value, several with commas between")
    return text


def parse_selector(text: str) -> dict[str, str]:
    """The labels of a checked `key=value,key=value`; empty for an empty text."""
    pairs = (part.partition("=") for part in text.split(",") if text)
    return {key: value for key, _, value in pairs}


RequiredName = Annotated[
    str,
    Field(min_length=1, max_length=NAME_LIMIT, json_schema_extra={"pattern": NAME_PATTERN}),
    AfterValidator(_plain_name),
]
Name = Annotated[
    str,
    Field(max_length=NAME_LIMIT, json_schema_extra={"pattern": f"^$|{NAME_PATTERN}"}),
    AfterValidator(_plain_name),
]
Text = Annotated[
    str, Field(max_length=TEXT_LIMIT, json_schema_extra={"pattern": TEXT_PATTERN}), AfterValidator(_plain_text)
]
VolumeName = Annotated[
    str, Field(max_length=NAME_LIMIT, json_schema_extra={"pattern": TEXT_PATTERN}), AfterValidator(_plain_text)
]
RequiredVolumeName = Annotated[
    str,
    Field(min_length=1, max_length=NAME_LIMIT, json_schema_extra={"pattern": TEXT_PATTERN}),
    AfterValidator(_plain_text),
]
AccessModeName = Literal[
    "SINGLE_NODE_WRITER",
    "SINGLE_NODE_READER_ONLY",
    "MULTI_NODE_READER_ONLY",
    "MULTI_NODE_SINGLE_WRITER",
    "MULTI_NODE_MULTI_WRITER",
    "SINGLE_NODE_SINGLE_WRITER",
    "SINGLE_NODE_MULTI_WRITER",
]
VolumeModeName = Literal["", "Filesystem", "Block"]
Ref = Annotated[
    str,
    Field(min_length=1, max_length=TEXT_LIMIT, json_schema_extra={"pattern": TEXT_PATTERN}),
    AfterValidator(_plain_text),
]
MapKey = Annotated[
    str,
    Field(min_length=1, max_length=NAME_LIMIT, json_schema_extra={"pattern": TEXT_PATTERN}),
    AfterValidator(_plain_text),
]
TextMap = Annotated[
    dict[MapKey, Text],
    Field(max_length=MAP_LIMIT),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAP_LIMIT,
            "propertyNames": {"minLength": 1, "maxLength": NAME_LIMIT, "pattern": TEXT_PATTERN},
            "additionalProperties": {"type": "string", "maxLength": TEXT_LIMIT, "pattern": TEXT_PATTERN},
        }
    ),
]
SecretText = Annotated[
    str,
    Field(max_length=TEXT_LIMIT, json_schema_extra={"pattern": rf"^$|^(env|file|k8s|nomadVar):[^{CONTROL}]+$"}),
    AfterValidator(_secret),
]
Token = Annotated[
    str, Field(max_length=TEXT_LIMIT, json_schema_extra={"pattern": TOKEN_PATTERN}), AfterValidator(_token)
]
PluginToken = Annotated[
    str, Field(max_length=4096, json_schema_extra={"pattern": TOKEN_PATTERN}), AfterValidator(_token)
]
Policy = Literal["Delete", "Retain"]
Capacity = Annotated[int, Field(ge=0, le=(1 << 63) - 1), BeforeValidator(_whole)]
PerPage = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Wait = Annotated[
    str,
    Field(max_length=32, json_schema_extra={"pattern": DURATION_PATTERN, "examples": ["60s", "5m"]}),
    AfterValidator(_wait),
]
OptionalWait = Annotated[
    str,
    Field(max_length=32, json_schema_extra={"pattern": f"^$|{DURATION_PATTERN}", "examples": ["500ms", "2s"]}),
    AfterValidator(lambda text: _wait(text) if text else ""),
]
Selector = Annotated[
    str,
    Field(max_length=TEXT_LIMIT, json_schema_extra={"pattern": SELECTOR_PATTERN}),
    AfterValidator(_selector),
]
State = Literal["pending", "cutting", "processing", "ready", "failing", "deleting", "retained"]
