"""`localapi serve`: start the server, and print its greeting on the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

import click

import localapi
from localapi.app import Service, listen
from localapi.cli.group import COMMANDS
from localapi.cli.options import manifest_option, profile_option, server_options, source_of
from localapi.cli.text_table import table
from localapi.kinds import KINDS
from localapi.manifest import ManifestSource
from localapi.observability import log as logs
from localapi.settings import Settings

log = logging.getLogger(__name__)


@click.command("serve", context_settings={"allow_extra_args": True, "allow_interspersed_args": False})
@manifest_option
@profile_option
@server_options
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Log level; overrides server.log_level.  [environment LOG_LEVEL]",
)
@click.option(
    "--log",
    "log_format",
    type=click.Choice(["text", "json"]),
    help="Log format: text, or one JSON object per line.  [environment LOG_FORMAT; default: text]",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Serve the models in the manifest, and apply its changes while running."""
    if ctx.args:
        word = ctx.args[0]
        if word in COMMANDS:  # as in `localapi --port 9000 models`
            raise click.UsageError(f"the command comes before its options: localapi {word} …")
        raise click.UsageError(f"Got unexpected extra argument ({word})")
    settings = Settings.read(**flags)
    logs.set_up(settings.log_format)
    source = source_of(settings)
    with listen(settings.host, settings.port) as listening:
        service = Service(settings, source)
        port = listening.getsockname()[1]
        asyncio.run(service.run(listening, lambda: _greet(service, source, settings, port)))


def _greet(service: Service, source: ManifestSource, settings: Settings, port: int) -> None:
    """Print the address, the files and the models; with JSON logs, log only what a program cannot ask for."""
    watched = ", ".join(str(path) for path in source.files())
    following = f"following {watched}" if watched else "no manifest file; models come from the environment"
    address = reachable(settings.host, port)
    if settings.log_format == "json":
        log.info("localapi %s on %s/v1", localapi.__version__, address)
        log.info("%s", following)
        for warning in service.warnings():
            log.warning("%s", warning)
        return
    _show(service, address, following)


def reachable(host: str, port: int) -> str:
    """Return the URL that a browser on this machine can open for a server that listens on `host`."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound to
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _show(service: Service, address: str, following: str) -> None:
    colour = logs.wants_colour(sys.stderr)
    logs.flush()

    def say(text: str = "", **style: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk for logs is no reason not to serve
            click.secho(text, err=True, color=colour, **style)

    say(f"{click.style('localapi', bold=True)} {localapi.__version__} on {click.style(f'{address}/v1', bold=True)}")
    say(f"console on {click.style(f'{address}/', bold=True)}")
    say()
    rows = []
    for entry in service.registry.entries.values():
        options = entry.options
        state = "pinned" if options.pin else "preload" if options.preload else "unloaded"
        rows.append([entry.id, entry.kind.name, options.backend_name, state, ", ".join(options.aliases)])
    for line in table(["model", "kind", "backend", "state", "aliases"], rows):
        say(f"  {line}")
    say()
    say(following)
    for warning in service.warnings():
        say(warning, fg="yellow")
    if not service.registry.entries:
        say(f"the manifest has no models; add one to a section: {', '.join(KINDS)}", fg="yellow")
