"""The command line: `localapi` serves, `check` reads a manifest, `say` speaks, `install` makes an environment, …

Exit status: 0 done, 1 something to mend (said in one line each), 2 a wrong command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import localapi
from localapi import environments
from localapi import log as logs
from localapi.errors import ManifestError, OperatorError
from localapi.manifest import Entry, Manifest, ManifestSource, Overrides, describe, json_schema, read
from localapi.settings import Settings, bearer

if TYPE_CHECKING:
    from localapi.app import Service

log = logging.getLogger(__name__)


class ServeByDefault(click.Group):
    """`localapi --port 9000` is `localapi serve --port 9000`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = args[:1] and (args[0] in self.commands or args[0] in ("--help", "--version"))
        return super().parse_args(ctx, args if named else ["serve", *args])


def manifest_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which manifest and which server."""
    for option in (
        click.option("--port", type=int, help="Port to listen on.  [environment PORT; default: 8000]"),
        click.option("--host", help="Address to listen on.  [environment HOST; default: 127.0.0.1]"),
        click.option(
            "--profile", help="Profile to merge over the manifest: configs/NAME.yaml.  [environment LOCALAPI_PROFILE]"
        ),
    ):
        command = option(command)
    return command


@click.group(cls=ServeByDefault, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(localapi.__version__, prog_name="localapi")
def cli() -> None:
    """A local model server that follows one file, models.yaml.

    Without a command it serves; `localapi serve --help` lists the options.
    """


@cli.command()
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="The manifest.  [environment LOCALAPI_MANIFEST; default: models.yaml]",
)
@manifest_options
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Over the manifest's server.log_level.  [environment LOG_LEVEL]",
)
@click.option(
    "--log",
    "log_format",
    type=click.Choice(["text", "json"]),
    help="Log lines for people, or a JSON object on each.  [environment LOG_FORMAT; default: text]",
)
def serve(**flags: Any) -> None:
    """Serve the manifest's models, and follow the manifest."""
    # The server's packages are imported here, so that the other commands answer at once.
    from localapi.app import Service, listen  # noqa: PLC0415

    settings = Settings.read(**flags)
    logs.set_up(settings.log_format)
    source = ManifestSource(settings.manifest, settings.profile, Overrides.read())
    with listen(settings.host, settings.port) as listening:
        service = Service(settings, source)
        port = listening.getsockname()[1]
        asyncio.run(service.run(listening, lambda: _greet(service, source, settings, port)))


def _greet(service: Service, source: ManifestSource, settings: Settings, port: int) -> None:
    """What a person wants to know first; for a program, only what it cannot ask."""
    entries = service.registry.entries.values()
    watched = ", ".join(str(path) for path in source.files())
    following = f"following {watched}" if watched else "following no file: the environment is the manifest"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.log_format == "json":
        log.info("localapi %s on http://%s:%d/v1", localapi.__version__, host, port)
        log.info("%s", following)
        for warning in service.warnings():
            log.warning("%s", warning)
        return
    colour = logs.wants_colour(sys.stderr)

    def say(text: str = "", **style: Any) -> None:
        with contextlib.suppress(OSError):  # a log on a full disk is no reason not to serve
            click.secho(text, err=True, color=colour, **style)

    address = click.style(f"http://{host}:{port}/v1", bold=True)
    say(f"{click.style('localapi', bold=True)} {localapi.__version__} on {address}")
    say()
    for line in table(
        ["model", "kind", "backend", "state", "also called"],
        [
            [
                e.id,
                e.kind,
                e.options.backend_name,
                "pinned" if e.serving.pin else "preload" if e.serving.preload else "unloaded",
                ", ".join(e.serving.aliases),
            ]
            for e in entries
        ],
    ):
        say(f"  {line}")
    say()
    say(following)
    for warning in service.warnings():
        say(warning, fg="yellow")
    if not entries:
        say("the manifest has no models: add one to its section chat or speech", fg="yellow")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the head first."""
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


@cli.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@manifest_options
def check(file: Path | None, **flags: Any) -> None:
    """Check a manifest, and show what it would change.

    Prints every value with the place that said it and, where a server runs, what it would do on a save of this file.
    Exit status 1 with every error and its place.
    """
    from localapi.comparison import compare  # noqa: PLC0415

    settings = Settings.read(manifest=file, **flags)
    manifest = read(ManifestSource(settings.manifest, settings.profile, Overrides.read()))
    rows = describe(manifest)
    for line in table(["value", "is", "said by"], [[row.key, row.value, row.origin] for row in rows]):
        click.echo(line)
    click.echo()
    click.echo(compare(manifest, settings.host, settings.port, bearer(settings.api_key)))


@cli.command()
@click.argument("text", required=False)
@click.option("--model", help="A speech model of the manifest.  [default: the first]")
@click.option("--voice", help="One of the model's voices.")
@click.option("--speed", type=click.FloatRange(0.25, 4), help="2 takes half the time.")
@click.option("--instructions", help="How to speak, for models that know it.")
@click.option(
    "--format", type=click.Choice(["mp3", "opus", "aac", "flac", "wav", "pcm"]), help="By FILE's name if not."
)
@click.option("-o", "--output", metavar="FILE", help="Write a file (- for standard output); otherwise it is played.")
@click.option(
    "--dry-run", is_flag=True, help="Only show what would be said, a segment on each line; no server is asked."
)
@manifest_options
def say(
    text: str | None,
    model: str | None,
    format: str | None,  # noqa: A002  # OpenAI's word
    output: str | None,
    *,
    dry_run: bool,
    voice: str | None,
    speed: float | None,
    instructions: str | None,
    **flags: Any,
) -> None:
    """Say TEXT, or standard input where TEXT is - or left out.

    The running server speaks; where none runs, and no address is given, one is started for this text.
    """
    from localapi import saying  # noqa: PLC0415

    settings = Settings.read(**flags)
    manifest = read(ManifestSource(settings.manifest, settings.profile, Overrides.read()))
    entry = _speech_entry(manifest, model)
    given = sys.stdin.read() if text is None or text == "-" else text
    said = given.encode(errors="surrogateescape").decode(errors="replace")  # bytes that are no UTF-8
    if dry_run:
        _show_script(said, entry)
        return
    kind = format or ("wav" if output in {None, "-"} else saying.format_of(Path(str(output))))
    request = {
        "model": entry.id,
        "input": said,
        "voice": voice,
        "speed": speed,
        "instructions": instructions,
        "response_format": "wav" if output is None else kind,
    }
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    may_start = flags["host"] is None and flags["port"] is None
    with saying.server(f"http://{host}:{settings.port}", flags["profile"], may_start=may_start) as address:
        pieces = saying.speech(address, request, bearer(settings.api_key))
        if output is None:
            saying.play(pieces)
        elif output == "-":
            saying.pipe(pieces, sys.stdout.buffer)
        else:
            saying.write(pieces, Path(output), _progress(output))


def _speech_entry(manifest: Manifest, name: str | None) -> Entry:
    """The entry that speaks. Raises click.UsageError where there is none."""
    speakers = [entry for entry in manifest.entries.values() if entry.serving.speech is not None]
    entry = manifest.resolve(name) if name is not None else next(iter(speakers), None)
    if entry is None or entry not in speakers:
        known = ", ".join(each.id for each in speakers) or "none"
        raise click.UsageError(
            f"{name!r} is no speech model of the manifest; it has: {known}"
            if name
            else "the manifest has no speech model"
        )
    return entry


def _show_script(text: str, entry: Entry) -> None:
    """What the text becomes, before a voice says it."""
    from localapi.spoken.script import script_of  # noqa: PLC0415

    settings = entry.serving.speech
    assert settings is not None  # noqa: S101  # a speech entry
    script = script_of(text, markdown=settings.speakable, lexicon=settings.lexicon, language=settings.language)
    for word in script.replaced:
        click.echo(f"{word.written} is said {word.said!r}", err=True)
    for segment in script.segments:
        click.echo(segment)
    if not script.segments:
        click.echo("nothing would be said: the text holds nothing that can be spoken", err=True)


def _progress(name: str) -> Callable[[int], None]:
    """A line on the terminal that counts; nothing where there is no terminal."""

    def show(written: int) -> None:
        click.echo(f"\r{name}: {written / 1000:.0f} kB", nl=False, err=True)

    return show if sys.stderr.isatty() else lambda _: None


@cli.command()
@click.argument("name", required=False, metavar="[NAME]", type=click.Choice(environments.NAMES))
@click.option("--force", is_flag=True, help="Make it again, although it is there.")
def install(name: str | None, *, force: bool) -> None:
    """Install the environment of a speech backend: mlx-audio-plus or mlx-audio. Without NAME: list them."""
    if name is None:
        _list_environments()
        return
    environment = environments.Environment.named(name)
    environments.install(environment, lambda line: click.echo(line, err=True), force=force)
    for other in environment.others():
        click.echo(f"not used by this version of localapi, and may be deleted: {other}", err=True)


def _list_environments() -> None:
    known = [environments.Environment.named(name) for name in environments.NAMES]
    rows = [[each.name, "installed" if each.ready else "missing", str(each.folder)] for each in known]
    for line in table(["environment", "state", "folder"], rows):
        click.echo(line)


@cli.command()
def schema() -> None:
    """Print the JSON Schema of models.yaml and of profiles."""
    click.echo(json.dumps(json_schema(), indent=2))


def main() -> None:
    """The program `localapi`."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ManifestError as error:
        count = len(error.problems)
        for problem in error.problems:
            click.echo(problem, err=True)
        click.echo(f"localapi: {count} problem{'s' * (count != 1)} in the manifest", err=True)
        sys.exit(1)
    except OperatorError as error:
        click.echo(f"localapi: {error}", err=True)
        sys.exit(1)
