"""Class parameters: the secrets that they name by template, and what of them goes to the driver. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from adapters.kubernetes import names
from bridge.model.secret import NO_SECRET, SecretRef, SnapshotSecrets

_TOKEN = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<bare>[A-Za-z_][A-Za-z0-9_]*))")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")


class TemplateError(ValueError):
    """A class's parameters cannot be used as they stand; the text is for its owner."""


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """What a template may insert. The list secret's templates know the content's name only."""

    content: str
    namespace: str = ""
    snapshot: str = ""


def driver_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters without those meant for us. TemplateError for an unknown one of our prefix."""
    known = {
        f"{names.PARAMETER_PREFIX}{secret}-{half}"
        for secret in (*names.SECRET_PARAMETERS, *names.GROUP_SECRET_PARAMETERS)
        for half in ("name", "namespace")
    }
    kept = {}
    for key, value in parameters.items():
        if not key.startswith(names.PARAMETER_PREFIX):
            kept[key] = value
        elif key not in known:
            raise TemplateError(
                f'found unknown parameter key "{key}" with reserved namespace {names.PARAMETER_PREFIX}'
            )
    return kept


def secrets(parameters: Mapping[str, str], given: Names) -> SnapshotSecrets:
    """The references for the create, delete and inspect calls. TemplateError names what is wrong."""
    own = f"{names.PARAMETER_PREFIX}{names.SECRET_PARAMETERS[0]}"
    create = _reference(parameters, own, _tokens("volumesnapshot", given))
    return SnapshotSecrets(create=create, delete=create, inspect=listing_secret(parameters, given.content))


def listing_secret(parameters: Mapping[str, str], content: str) -> SecretRef:
    """The reference for the inspect calls alone: of names its templates know the content's only."""
    own = f"{names.PARAMETER_PREFIX}{names.SECRET_PARAMETERS[1]}"
    return _reference(parameters, own, _tokens("volumesnapshot", Names(content)))


def group_secrets(parameters: Mapping[str, str], given: Names) -> SnapshotSecrets:
    """The same for a group's calls. All tokens work in all of them: upstream leaves some out and then fails."""
    own, getting = (f"{names.PARAMETER_PREFIX}{secret}" for secret in names.GROUP_SECRET_PARAMETERS)
    tokens = _tokens("volumegroupsnapshot", given)
    create = _reference(parameters, own, tokens)
    return SnapshotSecrets(create=create, delete=create, inspect=_reference(parameters, getting, tokens) or create)


def _tokens(kind: str, given: Names) -> tuple[dict[str, str], dict[str, str]]:
    """What may be inserted into a namespace, and into a name."""
    place = {f"{kind}content.name": given.content}
    if given.namespace:
        place[f"{kind}.namespace"] = given.namespace
    return place, {**place, f"{kind}.name": given.snapshot} if given.snapshot else place


def _reference(
    parameters: Mapping[str, str], prefix: str, tokens: tuple[Mapping[str, str], Mapping[str, str]]
) -> SecretRef:
    place, person = tokens
    name, namespace = parameters.get(f"{prefix}-name"), parameters.get(f"{prefix}-namespace")
    if name is None and namespace is None:
        return NO_SECRET
    if name is None or namespace is None:
        raise TemplateError(f"either name and namespace for {prefix} secrets specified, Both must be specified")
    if not name or not namespace:
        raise TemplateError(
            f"{prefix} secrets specified in parameters but value of either namespace or name is empty"
        )
    return SecretRef("k8s", f"{namespace_of(namespace, place)}/{secret_name_of(name, person)}")


def namespace_of(template: str, values: Mapping[str, str]) -> str:
    """The namespace that a template names. TemplateError when it is none."""
    return _checked(template, _expand(template, values), _LABEL, 63, "namespace")


def secret_name_of(template: str, values: Mapping[str, str]) -> str:
    """The Secret's name that a template gives. TemplateError when it is none."""
    return _checked(template, _expand(template, values), _SUBDOMAIN, 253, "secret")


def _expand(template: str, values: Mapping[str, str]) -> str:
    unknown: set[str] = set()

    def put_in(match: re.Match[str]) -> str:
        token = match["braced"] if match["braced"] is not None else match["bare"]
        if token not in values:
            unknown.add(token)
            return ""
        return values[token]

    text = _TOKEN.sub(put_in, template)
    if unknown:
        listed = " ".join(f'"{token}"' for token in sorted(unknown))
        raise TemplateError(f'error resolving value "{template}": invalid tokens: [{listed}]')
    return text


def _checked(template: str, value: str, allowed: re.Pattern[str], most: int, what: str) -> str:
    if len(value) <= most and allowed.fullmatch(value):
        return value
    if template != value:
        raise TemplateError(f'"{template}" resolved to "{value}" which is not a valid {what} name')
    raise TemplateError(f'"{template}" is not a valid {what} name')
