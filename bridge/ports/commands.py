"""Commands that an adapter adds to the command line: described as data here, shown and parsed by `bridge.cli`.

What a command needs from outside comes in with its `Call`: the service's API, the terminal, the environment. It must
not read `sys.argv`, print or end the process by itself.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

Json = dict[str, Any]
Query = Mapping[str, str | int | Sequence[str]]


class Exit(enum.IntEnum):
    """Exit codes of the whole command line (docs/cli.md); zero means that it is done."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOT_FOUND = 4
    CONFLICT = 5
    DENIED = 6
    TIMED_OUT = 7
    LOCKED = 11


class StopError(Exception):
    """Ends a command: a sentence on standard error, its remedy on the next line, and this exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class RefusedError(Exception):
    """The service refused. `document` is its RFC 9457 problem; `code` in it names the kind."""

    def __init__(self, status: int, document: Json) -> None:
        super().__init__(document.get("detail", ""))
        self.status = status
        self.document = document


class UnreachedError(Exception):
    """The connection could not be made or broke. `sentence` and `hint` are for people."""

    def __init__(self, sentence: str, hint: str = "", *, broke: bool = False) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.hint = hint
        self.broke = broke
        """After the request had left: it may have been carried out; repeated where that is safe."""


class Kind(enum.Enum):
    """What an option's value is, and what the command gets for it."""

    TEXT = "text"
    FLAG = "flag"
    """No value; True or False."""
    NUMBER = "number"
    DURATION = "duration"
    """`10m`; seconds as a float."""
    SIZE = "size"
    """`10Gi`; bytes."""
    PAIR = "pair"
    """`key=value`; both parts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One option. `name` is its key in `Call.values`; the flag is made of it (`wait_for`: --wait-for)."""

    name: str
    help: str
    kind: Kind = Kind.TEXT
    short: str = ""
    """One letter, without the dash."""
    default: Any = None
    choices: Sequence[str] = ()
    repeated: bool = False
    """May be given several times; the value is a tuple."""
    environment: str = ""
    """The variable that is read where the option is left out."""
    metavar: str = ""
    required: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Argument:
    """One word, or all that are left (`many`: a tuple)."""

    name: str
    required: bool = True
    many: bool = False


class Service(Protocol):
    """The service's HTTP API. RefusedError for its problems, UnreachedError when nothing answers.

    A command may let both pass: they end it with their own sentence and exit code.
    """

    @property
    def address(self) -> str:
        """As the user gave it."""
        ...

    def get(self, path: str, query: Query | None = None, *, timeout: float = 40.0) -> Json:
        """Read; repeated when the connection breaks."""
        ...

    def post(self, path: str, body: Json, *, key: str) -> Json:
        """Create; repeated when the connection breaks, which the idempotency key makes safe."""
        ...

    def delete(self, path: str, query: Query | None = None) -> Json:
        """Delete; never repeated."""
        ...

    def items(self, path: str, query: Query, *, limit: int = 0) -> Iterator[Json]:
        """Every item of a list, page by page."""
        ...

    def close(self) -> None:
        """Let the connection go."""
        ...


class Terminal(Protocol):
    """Where people and scripts read."""

    def say(self, text: str) -> None:
        """A line of data, on standard output."""
        ...

    def note(self, text: str) -> None:
        """A line beside the data, on standard error."""
        ...

    def show(self, document: Json, form: str) -> None:
        """A whole document; `form` is json or yaml."""
        ...

    def follow(
        self, service: Service, operation: Json, *, label: str, seconds: float, enough: Callable[[Json], bool] | None
    ) -> Json:
        """Show an operation's steps until it has ended, or `enough` says so. StopError: failed, or time is up."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One use of a command."""

    values: Mapping[str, Any]
    """Options and arguments, by name."""
    connect: Callable[..., Service]
    """The service that the shared options and the environment name. Keywords (`addr`, `token_file`, `ca_file`,
    `cert_file`, `key_file`) fill in what both leave out. StopError when they are no good."""
    terminal: Terminal
    environ: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """A command, or a group of them (`commands`, and then no `run`)."""

    name: str
    help: str
    """The first line is the summary."""
    run: Callable[[Call], int] | None = None
    """Carries it out; returns the exit code. It may raise StopError."""
    options: Sequence[Option] = ()
    arguments: Sequence[Argument] = ()
    commands: Sequence[Command] = ()
    connected: bool = True
    """Whether it takes the shared options --addr, --token-file, --ca-file, --cert-file and --key-file."""


class Commands(Protocol):
    """An adapter's commands. Looking one up imports its module and no other."""

    def names(self) -> Sequence[str]:
        """In the order of the help text."""
        ...

    def summary(self, name: str) -> str:
        """One line for the help text. Imports nothing."""
        ...

    def command(self, name: str) -> Command:
        """The whole description. KeyError when there is none."""
        ...
