"""Resolving secret references: what is read, what is fenced off, and that no value is in any error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.app.secrets import EnvironmentSecrets, FileSecrets, SecretChain
from bridge.model.failure import BridgeError, InvalidError, NotFoundError, UnavailableError
from bridge.model.secret import NO_SECRET, SecretRef
from bridge.ports.secrets import Secrets

VALUE = "hunter-2-hunter"


class Slow:
    async def resolve(self, ref: SecretRef) -> Mapping[str, str]:
        await asyncio.sleep(30)
        return {}


def chain(directory: Path, environ: Mapping[str, str] | None = None) -> SecretChain:
    resolvers: dict[str, Secrets] = {
        "env": EnvironmentSecrets(["CSI_SECRET_*"], environ or {}),
        "file": FileSecrets([str(directory)]),
        "k8s": Slow(),
    }
    return SecretChain(resolvers, timeout_seconds=0.05 if environ is None else 60)


async def refused(resolver: SecretChain, ref: str, kind: type[BridgeError]) -> str:
    with pytest.raises(kind) as error:
        await resolver.resolve(SecretRef.parse(ref))
    shown: BaseException | None = error.value
    while shown is not None:
        assert VALUE not in f"{shown} {shown!r}"
        shown = shown.__cause__
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return str(error.value)


async def test_no_reference_is_no_secret(tmp_path: Path) -> None:
    assert await chain(tmp_path, {}).resolve(NO_SECRET) == {}


async def test_a_variable_holds_an_object_of_strings(tmp_path: Path) -> None:
    resolver = chain(tmp_path, {"CSI_SECRET_A": f'{{"password": "{VALUE}", "user": "anna"}}'})
    assert await resolver.resolve(SecretRef.parse("env:CSI_SECRET_A")) == {"password": VALUE, "user": "anna"}


@pytest.mark.parametrize(
    "text", [VALUE, f'["{VALUE}"]', f'{{"a": {{"b": "{VALUE}"}}}}', '{"a": 1}', f'{{"a": "{VALUE}"', ""]
)
async def test_a_variable_that_is_no_object_of_strings_is_refused(tmp_path: Path, text: str) -> None:
    await refused(chain(tmp_path, {"CSI_SECRET_A": text}), "env:CSI_SECRET_A", InvalidError)


async def test_a_variable_must_be_set_and_allowed(tmp_path: Path) -> None:
    resolver = chain(tmp_path, {"PATH": VALUE})
    assert "is not set" in await refused(resolver, "env:CSI_SECRET_B", NotFoundError)
    assert "secrets.environment" in await refused(resolver, "env:PATH", InvalidError)


@pytest.mark.parametrize(
    "text", [f'{{"password": "{VALUE}"}}', f"password: {VALUE}\n", f"# why\npassword: '{VALUE}'\n"]
)
async def test_a_file_is_json_or_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_text(text)
    assert await chain(tmp_path, {}).resolve(SecretRef.parse(f"file:{tmp_path}/secret")) == {"password": VALUE}


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        f"- {VALUE}",
        f"a: 1\nb: {VALUE}",
        f"a: [{VALUE}",
        f"{VALUE}: 5",
        f"a: !!python/name:{VALUE}",
        "",
        "\x00",
    ],
)
async def test_a_file_that_is_no_object_of_strings_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_text(text)
    resolver = chain(tmp_path, {})
    if text == f"{VALUE}: 5":  # a key is a name, not a value; it is shown, so that it can be found
        with pytest.raises(InvalidError):
            await resolver.resolve(SecretRef.parse(f"file:{tmp_path}/secret"))
    else:
        await refused(resolver, f"file:{tmp_path}/secret", InvalidError)


async def test_a_directory_has_one_file_per_key(tmp_path: Path) -> None:
    data = tmp_path / "mounted" / "..2026"
    data.mkdir(parents=True)
    (data / "user").write_text("anna\n")
    (data / "password").write_text(VALUE)
    (tmp_path / "mounted" / "..data").symlink_to("..2026")
    for key in ("user", "password"):
        (tmp_path / "mounted" / key).symlink_to(f"..data/{key}")
    resolver = chain(tmp_path, {})
    assert await resolver.resolve(SecretRef.parse(f"file:{tmp_path}/mounted")) == {"user": "anna", "password": VALUE}


async def test_a_file_outside_the_fence_is_refused_by_any_way(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_text(f"password: {VALUE}")
    (inside / "link").symlink_to(tmp_path / "secret")
    resolver = chain(inside, {})
    for path in (f"{tmp_path}/secret", f"{inside}/../secret", f"{inside}/link", "/etc/shadow", f"{inside}-2/secret"):
        assert "secrets.directories" in await refused(resolver, f"file:{path}", InvalidError)


async def test_a_file_that_is_missing_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    resolver = chain(tmp_path, {})
    await refused(resolver, f"file:{tmp_path}/nothing", NotFoundError)
    (tmp_path / "huge").write_text(f"a: {VALUE}\n" * 100_000)
    assert "larger than 1 MiB" in await refused(resolver, f"file:{tmp_path}/huge", InvalidError)
    (tmp_path / "bytes").write_bytes(VALUE.encode() + b"\xff")
    assert "not UTF-8" in await refused(resolver, f"file:{tmp_path}/bytes", InvalidError)


async def test_a_scheme_without_resolver_or_one_that_hangs_is_an_error(tmp_path: Path) -> None:
    assert "Schemes configured: env, file, k8s" in await refused(chain(tmp_path), "nomadVar:default/x", InvalidError)
    assert "did not come within" in await refused(chain(tmp_path), "k8s:default/x", UnavailableError)


async def test_an_adapter_adds_its_scheme_later(tmp_path: Path) -> None:
    resolvers: dict[str, Secrets] = {}
    late = SecretChain(resolvers)
    resolvers["file"] = FileSecrets([str(tmp_path)])
    (tmp_path / "secret").write_text(f"password: {VALUE}")
    assert await late.resolve(SecretRef.parse(f"file:{tmp_path}/secret")) == {"password": VALUE}


async def test_a_link_inside_a_directory_of_keys_does_not_lead_out(tmp_path: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (allowed / "csi" / "..data").mkdir(parents=True)
    outside.write_text(VALUE)
    (allowed / "csi" / "..data" / "user").write_text("anna")
    (allowed / "csi" / "user").symlink_to("..data/user")
    resolver = chain(allowed, {})
    assert await resolver.resolve(SecretRef.parse(f"file:{allowed}/csi")) == {"user": "anna"}
    (allowed / "csi" / "password").symlink_to(outside)
    text = await refused(resolver, f"file:{allowed}/csi", InvalidError)
    assert "outside the directories" in text
