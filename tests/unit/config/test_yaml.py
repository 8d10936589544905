"""The strict reading of YAML: what is plain comes through, what only looks plain is refused where it stands."""

from __future__ import annotations

import pytest

from bridge.app import config_yaml
from bridge.app.config_problem import ConfigError, Place


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        config_yaml.parse(text, "f.yaml")
    return [str(problem) for problem in refused.value.problems]


def test_plain_values_come_through_as_they_look() -> None:
    text = (
        "a: text\nb: 12\nc: -1.5\nd: true\ne: [x, 'no', \"012\"]\nf: {g: 1:a}\nh: 1e3\ni: ''\nj: >-\n  two\n  lines\n"
    )
    assert config_yaml.parse(text, "f.yaml").data == {
        "a": "text",
        "b": 12,
        "c": -1.5,
        "d": True,
        "e": ["x", "no", "012"],
        "f": {"g": "1:a"},
        "h": "1e3",
        "i": "",
        "j": "two lines",
    }


def test_every_key_and_item_has_its_line() -> None:
    document = config_yaml.parse("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n", "f.yaml")
    lines = {path: place.line for path, place in document.places.items()}
    assert lines == {
        (): 0,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "y"): 5,
    }
    assert document.place(("a", "c", 1, "z", "deep")) == Place("f.yaml", 5)


def test_an_empty_file_is_an_empty_document() -> None:
    for text in ("", "# nothing\n"):
        assert config_yaml.parse(text, "f.yaml").data == {}
    assert problems("---\n") == ["f.yaml:2: has no value (give one, or remove the line)"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("yes", "is yes, which YAML reads as a truth value"),
        ("Off", "is Off, which YAML reads as a truth value"),
        ("True", "is True, which YAML reads as a truth value"),
        ("012", "is 012, which YAML reads as an octal number"),
        ("0x1F", "is 0x1F, which is not a plain decimal number"),
        ("1_000", "is 1_000, which is not a plain decimal number"),
        ("12:30:00", "is 12:30:00, which YAML reads as a number to the base 60"),
        ("1:30.5", "is 1:30.5, which YAML reads as a number to the base 60"),
        (".inf", "is .inf, which is not a plain decimal number"),
        (".nan", "is .nan, which is not a plain decimal number"),
        ("2026-11-21", "is 2026-11-21, which YAML reads as a date"),
        ("~", "has no value"),
        ("null", "has no value"),
        ("", "has no value"),
        ("!!binary aGk=", "has the tag binary"),
        ("!!python/object:os.system x", "has the tag python/object:os.system"),
        ("!secret x", "has the tag !secret"),
        ("!!set {a}", "has the tag set"),
        ('"a\\0b"', "contains a NUL character"),
        ("9" * 30, "which is not a plain decimal number"),
    ],
)
def test_a_value_that_is_not_what_it_looks_like_is_refused(value: str, words: str) -> None:
    (problem,) = problems(f"first: 1\nkey: {value}\n")
    assert problem.startswith("f.yaml:2: key: ")
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2\n", "f.yaml:2: a: is given twice, first on line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "f.yaml:4: a.b: is given twice, first on line 2"),
        ("1: x\n", "which YAML reads as a int"),
        ("? [a]\n: b\n", "has a key that is no text"),
        ("a: [1, 2\n", "f.yaml:2: is not YAML"),
        ("a: *b\n", "f.yaml:1: is not YAML"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
        ("- a\n", "must be a mapping of sections"),
        ("just words\n", "must be a mapping of sections"),
        ("a: b: c\n", "f.yaml:1: is not YAML"),
        ("a: \x01\n", "f.yaml: is not YAML that can be read"),
    ],
)
def test_what_cannot_be_one_document_is_refused(text: str, words: str) -> None:
    assert any(words in problem for problem in problems(text)), problems(text)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    assert len(problems("a: yes\nb: 012\nc:\n  d: ~\n  d: 1\n")) == 4


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("too large or too deep" in problem for problem in problems("\n".join(lines)))


def test_a_document_that_holds_itself_is_refused() -> None:
    assert any("too large or too deep" in problem for problem in problems("a: &a\n  b: *a\n"))


def test_a_huge_file_is_refused() -> None:
    assert "larger than 4 MiB" in problems("# " + "x" * (5 << 20))[0]
