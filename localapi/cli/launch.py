"""`localapi launch`: start an agent, such as Claude Code, with a model of the server."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click

from localapi.cli.agents import AGENTS, FOLDER, KEY_VARIABLE, Agent, SetUp, Target
from localapi.cli.asking import NoChatModel
from localapi.cli.options import complete_models, manifest_option, profile_option, server_of, server_options, source_of
from localapi.cli.temporary_server import or_temporary
from localapi.client import Server
from localapi.errors import OperatorError, Refused
from localapi.kinds import CHAT
from localapi.settings import Settings

Model = Mapping[str, Any]
"""Model object of `GET /v1/models`."""
NO_KEY: Final = "unused"
_PASSED_ON: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


class NotInstalled(OperatorError):
    """The tool to launch is not installed."""


class Unsuitable(OperatorError):
    """The model cannot do what the tool requires."""


@click.command("launch")
@click.argument("tool", type=click.Choice(list(AGENTS)), metavar="TOOL")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--model", metavar="ENTRY", help="Model to use.  [default: a suitable one]", shell_complete=complete_models("chat")
)
@click.option("--print", "show", is_flag=True, help="Print the settings as shell commands instead of starting TOOL.")
@profile_option
@manifest_option
@server_options
def command(tool: str, arguments: tuple[str, ...], model: str | None, *, show: bool, **flags: Any) -> None:
    """Start an agent, such as Claude Code, that uses a model of the server.

    TOOL is claude, codex, opencode, qwen, pi, cn, goose, aider or llm. Everything after -- is passed to it.

    If no server is running and no address is given, a temporary server runs until TOOL exits. The configuration files
    of TOOL are not changed.
    """
    agent = AGENTS[tool]
    settings = Settings.read(**flags)
    server = server_of(settings)
    there = server.is_there()
    if show:
        models = server.get("/v1/models")["data"] if there else _of_manifest(settings)
        chosen = _chosen(server if there else None, models, agent, model)
        if not there:
            click.echo(f"# No server is running on {server.address}. Start one with: localapi")
        for line in lines(agent, _set_up(agent, server, chosen), arguments, has_key=bool(settings.key_header)):
            click.echo(line)
        return
    program = shutil.which(agent.name)
    if program is None:
        raise NotInstalled(f"{agent.name} is not installed, or not in PATH; install it with: {agent.install}")
    start = flags["host"] is None and flags["port"] is None and not there
    given = [(name, flags[name]) for name in ("manifest", "profile") if flags[name] is not None]
    options = [word for name, value in given for word in (f"--{name}", str(value))]
    with or_temporary(server, options, start=start) as server:
        chosen = _loaded(server, _chosen(server, server.get("/v1/models")["data"], agent, model))
        _warn(agent, chosen)
        key = settings.api_key.get_secret_value() if settings.api_key is not None else NO_KEY
        status = _run(program, _set_up(agent, server, chosen), arguments, key)
    raise click.exceptions.Exit(status)


def choose(models: Iterable[Model], agent: Agent) -> Model:
    """Return the most suitable model for an agent. Raise NoChatModel or Unsuitable if there is none.

    Models whose context is known to be too small come last. The others are ordered by: loaded, downloaded, known to
    call tools, context length, position in the manifest.
    """
    chats = [model for model in models if model["kind"] == CHAT.name]
    if not chats:
        raise NoChatModel("there is no chat model; add one to the `chat` section of the manifest")
    able = [model for model in chats if _can(model, agent)]
    if not able:
        names = ", ".join(model["id"] for model in chats)
        raise Unsuitable(f"{agent.name} needs a model that can call tools, and none can: {names}")

    def order(model: Model) -> tuple[bool, bool, bool, bool, int]:
        length = model.get("context_length")
        tools = (model.get("capabilities") or {}).get("tools")
        state = model["state"]
        is_away = state == "not_downloaded"
        return _too_small(model, agent), state != "ready", is_away, tools is not True, -(length or 0)

    return min(able, key=order)


def lines(agent: Agent, made: SetUp, arguments: Sequence[str], *, has_key: bool) -> Iterator[str]:
    """Yield the set-up as shell commands, with a reference to the key instead of the key."""
    if made.files:
        yield "folder=$(mktemp -d)"
    for name, text in made.files.items():
        yield f"cat > \"$folder/{name}\" <<'END'\n{text.rstrip()}\nEND"
    for name in made.unset:
        yield f"unset {name}"
    for name, value in made.variables.items():
        yield f"export {name}={_quoted(value)}"
    for name in made.key_variables:
        if has_key and name != KEY_VARIABLE:
            yield f'export {name}="${KEY_VARIABLE}"'
        elif not has_key:
            yield f"export {name}={NO_KEY}"
    yield " ".join([agent.name, *(_quoted(word) for word in (*made.arguments, *arguments))])


def _quoted(text: str) -> str:
    return '"$folder"'.join(shlex.quote(part) if part else "" for part in text.split(FOLDER)) or "''"


def _can(model: Model, agent: Agent) -> bool:
    """Return whether the model has what the agent requires, as far as is known."""
    return not agent.tools or (model.get("capabilities") or {}).get("tools") is not False


def _too_small(model: Model, agent: Agent) -> bool:
    length = model.get("context_length")
    return length is not None and length < agent.context


def _chosen(server: Server | None, models: Sequence[Model], agent: Agent, name: str | None) -> Model:
    """Return the named model, or the most suitable one. Raise Refused, NoChatModel or Unsuitable."""
    if name is None:
        return choose(models, agent)
    if server is not None:
        model: Model = server.get(f"/v1/models/{urllib.parse.quote(name)}")
    else:
        found = [each for each in models if name in (each["id"], *each["aliases"])]
        if not found:
            names = ", ".join(each["id"] for each in models)
            raise NoChatModel(f"the manifest has no model {name!r}; it has: {names}")
        model = found[0]
    if model["kind"] != CHAT.name:
        raise NoChatModel(f"{name} is a {model['kind']} model; {agent.name} needs one for chat")
    if not _can(model, agent):
        others = ", ".join(each["id"] for each in models if each["kind"] == CHAT.name and _can(each, agent))
        hint = f"; these can: {others}" if others else ""
        raise Unsuitable(f"{name} cannot call tools, which {agent.name} needs{hint}")
    return model


def _of_manifest(settings: Settings) -> list[Model]:
    """Return the models of the manifest in the form of `GET /v1/models`, with what the choice for an agent needs."""
    from localapi.kinds.chat import chat_options  # noqa: PLC0415  # only without a server
    from localapi.manifest import read  # noqa: PLC0415

    models: list[Model] = []
    for entry in read(source_of(settings), needs_secrets=False).entries.values():
        can = chat_options(entry.options).expected() if entry.kind is CHAT else None
        model = {"id": entry.id, "aliases": entry.options.aliases, "kind": entry.kind.name, "state": "unloaded"}
        models.append({**model, "capabilities": {"tools": can.tools} if can is not None else None})
    return models


def _loaded(server: Server, model: Model) -> Model:
    """Load the model, and return what is known of it then. Raise Refused if it cannot be loaded."""
    path = f"/v1/models/{urllib.parse.quote(model['id'])}"
    if model["state"] == "ready":
        return model
    click.echo(f"loading {model['id']}", err=True)
    try:
        server.post(f"/admin/models/{urllib.parse.quote(model['id'])}/load")
    except Refused as error:
        if error.status != HTTPStatus.FORBIDDEN:  # without the admin right, the first request loads it
            raise
    loaded: Model = server.get(path)
    return loaded


def _warn(agent: Agent, model: Model) -> None:
    """Print which model is used, and warn if its context is too small."""
    click.echo(f"{agent.name} uses {model['id']}", err=True)
    if _too_small(model, agent):
        click.echo(
            f"{model['id']} has a context of {model['context_length']} tokens; "
            f"{agent.name} needs about {agent.context}, so its requests may be refused",
            err=True,
        )


def _set_up(agent: Agent, server: Server, model: Model) -> SetUp:
    """Return the settings for the agent, with the server's host excluded from the user's proxy, if there is one."""
    made = agent.set_up(Target(server.address, model["id"], model.get("context_length")))
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return made
    host, _ = server.host_and_port
    direct = {}
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [each for each in os.environ.get(name, "").split(",") if each]
        direct[name] = ",".join(dict.fromkeys([*hosts, host]))
    return replace(made, variables={**made.variables, **direct})


def _run(program: str, made: SetUp, arguments: Sequence[str], key: str) -> int:
    """Run the program on this terminal, and return its exit status: 128 plus the signal if one ended it."""
    with tempfile.TemporaryDirectory(prefix="localapi-") as folder:
        for name, text in made.files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name not in made.unset}
        environment |= {name: value.replace(FOLDER, folder) for name, value in made.variables.items()}
        environment |= dict.fromkeys(made.key_variables, key)
        words = [program, *(word.replace(FOLDER, folder) for word in made.arguments), *arguments]
        status = _attended(words, environment)
    return status if status >= 0 else 128 - status


def _attended(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program, pass signals on to it, and return its return code like `Popen.wait`."""
    process: subprocess.Popen[bytes] | None = None
    typed = {signal.SIGINT, signal.SIGQUIT} if _has_terminal() else set()  # the terminal sends these to both processes

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            sys.exit(128 + number)
        if number not in typed:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        process = subprocess.Popen(words, env=environment)  # noqa: S603
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Return whether this process is in the foreground of a terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
