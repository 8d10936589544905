"""`version`, `whoami`, `completion`: the command line about itself."""

from __future__ import annotations

from typing import Any

import click

import bridge
from bridge.cli import exits, options, output
from bridge.cli.faults import LostError, ProblemError

_SHELLS = {
    "bash": "eval \"$(snapbridge completion bash)\"  in ~/.bashrc",
    "zsh": "eval \"$(snapbridge completion zsh)\"  in ~/.zshrc",
    "fish": "snapbridge completion fish | source  in ~/.config/fish/config.fish",
}  # fmt: skip


@click.command("version", cls=options.Command)
@click.option("--client", "only_client", is_flag=True, help="Do not ask the service.")
@options.printed
@options.connected
def version(client: Any, only_client: bool, form: str) -> None:
    """Show the version here, and the service's."""
    found: dict[str, object] = {"client": bridge.__version__, "server": None}
    reason = ""
    if not only_client:
        found["server"], reason = _server_version(client)
    if form in ("json", "yaml"):
        output.show_document({"apiVersion": "snapbridge/v1", "kind": "Versions", **found}, form)
        return
    click.echo(f"client  {bridge.__version__}")
    if not only_client:
        click.echo(f"server  {found['server'] or 'unknown'}{f'  ({reason})' if reason else ''}")


def _server_version(client: Any) -> tuple[str | None, str]:
    try:
        return str(client.get("/v1/version", timeout=3)["version"]), ""
    except LostError as error:
        return None, error.sentence
    except (ProblemError, exits.Stop) as error:
        return None, str(error)


@click.command("whoami", cls=options.Command)
@options.printed
@options.connected
def whoami(client: Any, form: str) -> None:
    """Show as whom the service knows you."""
    found = client.get("/v1/whoami")
    if form in ("json", "yaml"):
        output.show_document(found, form)
    elif form == "name":
        click.echo(found["name"])
    else:
        limits = {name: found[name] or "all" for name in ("clusters", "namespaces", "volumes")}
        output.sections([("Name", found["name"]), *((name.capitalize(), value) for name, value in limits.items())])


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash   eval "$(snapbridge completion bash)"
    zsh    eval "$(snapbridge completion zsh)"
    fish   snapbridge completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise exits.Stop(f"no completion for {shell}", code=exits.USAGE)
    root = context.find_root().command
    click.echo(kind(root, {}, "snapbridge", "_SNAPBRIDGE_COMPLETE").source())
