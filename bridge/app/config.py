"""The configuration: YAML files to checked values, every problem with its file, line and remedy.

It reads files and names, never a secret. It knows no orchestrator: each adapter's section is checked by the model
that the catalogue hands in, and its keys are that adapter's own.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from bridge.app import config_errors, config_sections, config_yaml
from bridge.app.config_problem import ConfigError, Path, Place, Problem, dotted, nearest
from bridge.model.failure import InvalidError

S = TypeVar("S", bound=pydantic.BaseModel)
Sections = Mapping[str, type[pydantic.BaseModel]]
"""For each kind of cluster, the model of its section. A model may have a class method `environment_defaults`, which
takes the environment and the section as written, and returns values for keys that are not given."""

PATH_VARIABLE = "SNAPBRIDGE_CONFIG"
DEFAULT_PATH = "/etc/snapbridge"
_OWN: dict[str, type[config_sections.Section]] = {
    "service": config_sections.ServiceSection,
    "api": config_sections.ApiSection,
    "csi": config_sections.CsiSection,
    "secrets": config_sections.SecretsSection,
}
_LISTS = ("clusters", "plugins")
_KNOWN = (*_OWN, "hub", *_LISTS)


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster: its name, its kind, and the checked section of that kind."""

    name: str
    kind: str
    settings: pydantic.BaseModel


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """Everything that was read, checked."""

    service: config_sections.ServiceSection
    api: config_sections.ApiSection
    csi: config_sections.CsiSection
    secrets: config_sections.SecretsSection
    hub: config_sections.HubSection | None
    clusters: tuple[Cluster, ...]
    plugins: tuple[config_sections.PluginSection, ...]
    files: tuple[str, ...] = ()
    """What was read, in order."""


def default_paths(environ: Mapping[str, str]) -> list[str]:
    """Where to read when no path was given: $SNAPBRIDGE_CONFIG (colons between several), else /etc/snapbridge."""
    return [path for path in environ.get(PATH_VARIABLE, "").split(":") if path] or [DEFAULT_PATH]


def load(paths: Sequence[str], sections: Sections, environ: Mapping[str, str] | None = None) -> Config:
    """Read files and directories (`*.yaml` in the order of their names) as one document.

    Mappings of the same section join, lists of clusters and plugins are put one after the other, and a key given in
    two files is refused. ConfigError lists every problem.
    """
    document, files = read_document(paths)
    return _Check(document, sections, environ or {}).config(files)


def read_document(paths: Sequence[str]) -> tuple[config_yaml.Document, tuple[str, ...]]:
    """The files of these paths as one document, and their names in order."""
    files = tuple(file for path in paths for file in _files(path))
    return _merge([config_yaml.parse(_read(file), file) for file in files]), files


def _files(path: str) -> list[str]:
    place = pathlib.Path(path)
    if not place.is_dir():
        return [path]
    try:
        files = [file for file in place.iterdir() if file.suffix == ".yaml" and not file.name.startswith(".")]
    except OSError as error:
        raise ConfigError([Problem(Place(path), "", f"cannot be read: {error.strerror}")]) from None
    odd = [
        Problem(Place(str(file)), "", "is not a regular file")
        for file in files
        if file.exists() and not file.is_file()
    ]
    if odd:  # a pipe would be waited for
        raise ConfigError(odd)
    found = sorted(str(file) for file in files)
    if not found:
        raise ConfigError([Problem(Place(path), "", "has no *.yaml file", "put one there, or name a file with -c")])
    return found


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read(config_yaml.MOST_BYTES + 1)  # one more, so that `parse` sees that it is too much
    except OSError as error:
        hint = "name the configuration with -c FILE or -c DIRECTORY" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError([Problem(Place(file), "", f"cannot be read: {error.strerror}", hint)]) from None
    except ValueError:
        raise ConfigError([Problem(Place(file), "", "is not UTF-8 text")]) from None


def _merge(documents: Sequence[config_yaml.Document]) -> config_yaml.Document:
    """One document of several. ConfigError names both places of a key that is in two of them."""
    merged = config_yaml.Document({}, {})
    problems: list[Problem] = []
    for document in documents:
        _join(merged, document, (), problems)
    if problems:
        raise ConfigError(problems)
    return merged


def _join(into: config_yaml.Document, more: config_yaml.Document, path: Path, problems: list[Problem]) -> None:
    here, there = _at(into.data, path), _at(more.data, path)
    for key, value in there.items():
        place, inner = more.place((*path, key)), (*path, key)
        if key not in here:
            here[key] = value
            into.places |= {p: at for p, at in more.places.items() if p[: len(inner)] == inner}
        elif isinstance(here[key], dict) and isinstance(value, dict):
            _join(into, more, inner, problems)
        elif not path and key in _LISTS and isinstance(here[key], list) and isinstance(value, list):
            shift = len(here[key])
            for old, at in more.places.items():
                if len(old) > 1 and old[0] == key and isinstance(old[1], int):
                    into.places[(key, old[1] + shift, *old[2:])] = at
            here[key].extend(value)
        else:
            problems.append(Problem(place, dotted(inner), f"is given in {into.place(inner)} too", "keep one"))


def _at(data: dict[str, Any], path: Path) -> dict[str, Any]:
    for part in path:
        data = data[part]  # type: ignore[index]
    return data


class _Check:
    """One check of one merged document. Problems are gathered, so that all are shown at once."""

    def __init__(self, document: config_yaml.Document, sections: Sections, environ: Mapping[str, str]) -> None:
        self._document = document
        self._sections = sections
        self._environ = environ
        self._problems: list[Problem] = []

    def config(self, files: tuple[str, ...]) -> Config:
        """The checked configuration, or ConfigError."""
        for key in self._document.data:
            if key not in _KNOWN:
                self._refuse((key,), "is an unknown section", nearest(key, _KNOWN))
        own = {name: self._section(model, (name,)) for name, model in _OWN.items()}
        hub = self._section(config_sections.HubSection, ("hub",)) if "hub" in self._document.data else None
        clusters = [found for path, item in self._items("clusters") if (found := self._cluster(path, item))]
        plugins = [self._model(config_sections.PluginSection, path, item) for path, item in self._items("plugins")]
        self._names("clusters", "another cluster")
        self._names("plugins", "another plugin")
        if not self._document.data.get("clusters") and not self._problems:
            self._refuse(("clusters",), "names no cluster", "begin with one like {name: local, kind: standalone}")
        if isinstance(own["api"], config_sections.ApiSection):
            self._check_door(own["api"])
        if self._problems:
            raise ConfigError(self._problems)
        return Config(
            **own,  # type: ignore[arg-type]
            hub=hub,
            clusters=tuple(clusters),
            plugins=tuple(plugin for plugin in plugins if plugin is not None),
            files=files,
        )

    def _refuse(self, path: Path, message: str, hint: str = "") -> None:
        self._problems.append(Problem(self._document.place(path), dotted(path), message, hint))

    def _section(self, model: type[S], path: Path) -> S | None:
        return self._model(model, path, self._document.data.get(str(path[0]), {}))

    def _model(self, model: type[S], path: Path, data: object) -> S | None:
        try:
            return model.model_validate(data)
        except pydantic.ValidationError as error:
            for inner, message, hint in config_errors.explain(error, model):
                self._refuse((*path, *inner), message, hint)
            return None

    def _items(self, key: str) -> Iterator[tuple[Path, object]]:
        items = self._document.data.get(key, [])
        if not isinstance(items, list):
            self._refuse((key,), "must be a list", "begin each item with a dash")
            return
        for index, item in enumerate(items):
            yield (key, index), item

    def _cluster(self, path: Path, item: object) -> Cluster | None:
        """A cluster's own keys are `name` and `kind`; all others go to the section's model."""
        if not isinstance(item, dict):
            self._refuse(path, "must be a mapping", "write it like {name: local, kind: standalone}")
            return None
        rest = {key: value for key, value in item.items() if key not in ("name", "kind")}
        head = self._model(_Head, path, {key: item[key] for key in ("name", "kind") if key in item})
        if head is None:
            return None
        model = self._sections.get(head.kind)
        if model is None:
            self._refuse(
                (*path, "kind"), f"is {head.kind[:60]!r}, an unknown kind", nearest(head.kind, self._sections)
            )
            return None
        defaults: Callable[..., Mapping[str, object]] | None = getattr(model, "environment_defaults", None)
        if defaults is not None:
            rest = {**defaults(self._environ, rest), **rest}
        settings = self._model(model, path, rest)
        return Cluster(head.name, head.kind, settings) if settings is not None else None

    def _names(self, key: str, other: str) -> None:
        seen: dict[object, Path] = {}
        items = self._document.data.get(key, [])
        for index, item in enumerate(items if isinstance(items, list) else []):
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str) and name in seen:
                where = self._document.place((*seen[name], "name"))
                self._refuse(
                    (key, index, "name"), f"is {name[:60]!r}, the name of {other} ({where})", "choose another"
                )
            elif isinstance(name, str):
                seen[name] = (key, index)

    def _check_door(self, api: config_sections.ApiSection) -> None:
        try:
            api.settings().check()
        except InvalidError as error:
            self._refuse(tuple(error.field.split(".")), error.message, error.hint)


class _Head(config_sections.Section):
    """The keys that every cluster has."""

    name: config_sections.Name
    kind: str


def json_schema(sections: Sections) -> dict[str, Any]:
    """The JSON Schema of the whole document, for editors and for the documentation."""
    models: dict[str, type[pydantic.BaseModel]] = {**_OWN, "hub": config_sections.HubSection}
    models |= {"plugins": config_sections.PluginSection}
    wanted = [(model, "validation") for model in (*models.values(), *sections.values())]
    keys, shared = pydantic.json_schema.models_json_schema(wanted, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
    definitions: dict[str, Any] = shared.get("$defs", {})
    refs = {model: keys[(model, "validation")] for model in (*models.values(), *sections.values())}
    head = _Head.model_json_schema()["properties"]
    clusters = []
    for kind, model in sections.items():
        section = dict(definitions[refs[model]["$ref"].rsplit("/", 1)[-1]])
        section["properties"] = {**head, "kind": {"const": kind}, **section.get("properties", {})}
        section["required"] = ["name", "kind", *section.get("required", [])]
        clusters.append(section | {"title": f"{kind} cluster"})
    properties: dict[str, Any] = {name: refs[model] for name, model in models.items() if name != "plugins"}
    properties["plugins"] = {"type": "array", "items": refs[models["plugins"]]}
    properties["clusters"] = {"type": "array", "minItems": 1, "items": {"oneOf": clusters}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "snapbridge configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["clusters"],
        "properties": properties,
        "$defs": definitions,
    }
