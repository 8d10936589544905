"""Secrets by reference: the resolvers of `env:` and `file:`, and the chain that adapters add their schemes to.

A value lives from here to one call. Nothing here logs one, keeps one or puts one in an error.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import pathlib
from collections.abc import Mapping, Sequence

import orjson
import yaml

from bridge.model.failure import InvalidError, NotFoundError, UnavailableError
from bridge.model.secret import SecretRef
from bridge.ports.secrets import Secrets

_MOST_BYTES = 1 << 20


class SecretChain:
    """Gives each reference to the resolver of its scheme. `resolvers` may grow later: adapters add theirs to it."""

    def __init__(self, resolvers: Mapping[str, Secrets], *, timeout_seconds: float = 10.0) -> None:
        self._resolvers = resolvers
        self._timeout_seconds = timeout_seconds

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        """See ports.secrets.Secrets. UnavailableError too when a resolver takes longer than it may."""
        if not ref:
            return {}
        resolver = self._resolvers.get(ref.scheme)
        if resolver is None:
            known = ", ".join(sorted(self._resolvers)) or "none"
            raise InvalidError(
                f"no resolver for the secret {ref}: its scheme is not configured here",
                hint=f"Schemes configured: {known}.",
                field="secret",
            )
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await resolver.resolve(ref)
        except TimeoutError:
            raise UnavailableError(f"the secret {ref} did not come within {self._timeout_seconds:g} s") from None


class EnvironmentSecrets:
    """`env:NAME`: a variable that holds a JSON object of strings. Only names that the configuration allows."""

    def __init__(self, allowed: Sequence[str], environ: Mapping[str, str]) -> None:
        self._allowed = tuple(allowed)
        self._environ = environ

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        """See ports.secrets.Secrets."""
        if not any(fnmatch.fnmatchcase(ref.locator, pattern) for pattern in self._allowed):
            raise InvalidError(
                f"the secret {ref} is not a variable that may be read",
                hint="Name it in secrets.environment of the configuration.",
                field="secret",
            )
        text = self._environ.get(ref.locator)
        if text is None:
            raise NotFoundError(f"the secret {ref} does not exist: the variable is not set", field="secret")
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError:
            data = None
        return _strings(data, ref, 'Set it to a JSON object of strings, like {"user": "…"}.')


class FileSecrets:
    """`file:PATH`: a JSON or YAML object of strings, or a directory with one file per key.

    Only inside the directories that the configuration allows; links are followed first.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)

    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        """See ports.secrets.Secrets. Reads in a thread."""
        return await asyncio.to_thread(self._read, ref)

    def _read(self, ref: SecretRef) -> Mapping[str, str]:
        try:
            place = pathlib.Path(os.path.realpath(ref.locator))
            self._check_place(place, ref)
            if place.is_dir():
                found = {entry.name: pathlib.Path(os.path.realpath(entry)) for entry in _entries(place)}
                for target in found.values():
                    self._check_place(target, ref)
                return {name: _read_text(target, ref) for name, target in found.items()}
            return _strings(_parse(_read_text(place, ref, strip=False)), ref, "Write an object of strings there.")
        except FileNotFoundError:
            raise NotFoundError(f"the secret {ref} does not exist", field="secret") from None
        except OSError as error:
            raise UnavailableError(f"the secret {ref} cannot be read: {error.strerror}", field="secret") from None
        except ValueError:
            raise InvalidError(f"the secret {ref} is not UTF-8 text", field="secret") from None

    def _check_place(self, place: pathlib.Path, ref: SecretRef) -> None:
        if any(place.is_relative_to(os.path.realpath(directory)) for directory in self._allowed):
            return
        raise InvalidError(
            f"the secret {ref} is outside the directories that may be read",
            hint="Name its directory in secrets.directories of the configuration.",
            field="secret",
        )


def _entries(directory: pathlib.Path) -> list[pathlib.Path]:
    """One per key. Names with a leading dot are the workings of whoever mounted the directory."""
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith(".") and entry.is_file())


def _read_text(file: pathlib.Path, ref: SecretRef, *, strip: bool = True) -> str:
    """The text; without the newline that editors put at the end, where the text is the value itself."""
    with file.open("rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidError(f"the secret {ref} is larger than 1 MiB", field="secret")
    text = data.decode()
    return text.removesuffix("\n").removesuffix("\r") if strip else text


def _parse(text: str) -> object:
    """JSON or YAML; None when it is neither. The parser's error is dropped, because it quotes the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return None


def _strings(data: object, ref: SecretRef, hint: str) -> Mapping[str, str]:
    if not isinstance(data, dict):
        raise InvalidError(f"the secret {ref} is not an object of strings", hint=hint, field="secret")
    for key, value in data.items():
        if not isinstance(key, str) or not isinstance(value, str):
            shown = key if isinstance(key, str) else "a key"
            raise InvalidError(
                f"the secret {ref} has a value that is no text, at {shown!r}",
                hint="Put numbers and truth values in quotes.",
                field="secret",
            )
    return dict(data)
