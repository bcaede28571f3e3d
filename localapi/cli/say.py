"""`localapi say`: speak a text to a file, a pipe or the loudspeakers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from localapi.backends.pool import PoolOptions
from localapi.cli import sound_output
from localapi.cli.options import complete_models, given_text, profile_option, server_of, server_options, source_of
from localapi.cli.temporary_server import or_temporary
from localapi.errors import OperatorError
from localapi.kinds import SPEECH
from localapi.kinds.speech import speech_options
from localapi.manifest import Entry, read
from localapi.settings import Settings
from localapi.system.byte_sizes import readable
from localapi.text.script import script_of

PATH: Final = "/v1/audio/speech"
ADD_ONE: Final = "`localapi add --backend auto --kind speech` adds one"


@click.command("say")
@click.argument("text", required=False)
@click.option("--model", help="Speech model.  [default: the first]", shell_complete=complete_models("speech"))
@click.option("--voice", help="Voice of the model.")
@click.option("--speed", type=click.FloatRange(0.25, 4), help="Speed factor; 2 takes half the time.")
@click.option("--instructions", help="Style of speaking, if the model supports it.")
@click.option(
    "--format", type=click.Choice(sound_output.FORMATS), help="Audio format.  [default: from the name of FILE]"
)
@click.option("-o", "--output", metavar="FILE", help="Write a file (- for standard output) instead of playing.")
@click.option("--dry-run", is_flag=True, help="Print the segments to be spoken, one per line, without a server.")
@profile_option
@server_options
def command(
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
    """Speak TEXT, or standard input if TEXT is - or omitted.

    The running server speaks. If no server is running and no address is given, a temporary one is started.
    """
    settings = Settings.read(**flags)
    said = given_text(text)
    if dry_run:
        _show_script(said, _speech_entry(settings, model))
        return
    if format is not None and output is None:
        raise click.UsageError("--format needs --output FILE, or --output - for standard output")
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; give --output FILE, or pipe the sound into a program")
    kind = format or ("wav" if output in {None, "-"} else sound_output.format_of(Path(str(output))))
    said_how = {"voice": voice, "speed": speed, "instructions": instructions, "response_format": kind}
    request = {"input": said, **{name: value for name, value in said_how.items() if value is not None}}
    server = server_of(settings)
    start = flags["host"] is None and flags["port"] is None and not server.is_there()
    if start:
        _speech_entry(settings, model)  # it reports all errors; a server that cannot start reports only one line
    profile = ["--profile", flags["profile"]] if flags["profile"] is not None else []
    with or_temporary(server, profile, start=start) as server:
        if model is None:
            models = server.get("/v1/audio/models")["data"]
            if not models:
                raise NoSpeechModel(f"the server on {server.address} has no speech model: {ADD_ONE}")
            model = models[0]["id"]
        _give(server.stream(PATH, {**request, "model": model}), output)


class NoSpeechModel(OperatorError):
    """There is no speech model, or none with that name."""


def _speech_entry(settings: Settings, name: str | None) -> Entry:
    """Return the named speech entry, or the first. Raise ManifestError or NoSpeechModel."""
    manifest = read(source_of(settings), needs_secrets=False)
    speakers = [entry for entry in manifest.entries.values() if entry.kind is SPEECH]
    if not speakers:
        raise NoSpeechModel(f"the manifest has no speech model: {ADD_ONE}")
    entry = manifest.resolve(name) if name is not None else speakers[0]
    if entry is None or entry not in speakers:
        known = ", ".join(each.id for each in speakers)
        raise NoSpeechModel(f"{name!r} is not a speech model of the manifest, which has: {known}")
    # members may pronounce a text differently; the first stands for them all
    if isinstance(entry.options, PoolOptions):
        entry = manifest.resolve(entry.options.of[0]) or entry
    return entry


def _give(pieces: Iterator[bytes], output: str | None) -> None:
    if output is None:
        sound_output.play(pieces)
    elif output == "-":
        sound_output.pipe(pieces, sys.stdout.buffer)
    else:
        terminal = sys.stderr.isatty()

        def show(written: int) -> None:
            if terminal:
                click.echo(f"\r\x1b[K{output}: {readable(written)}", nl=False, err=True)

        try:
            sound_output.write(pieces, Path(output), show)
        finally:
            if terminal:
                click.echo(err=True)


def _show_script(text: str, entry: Entry) -> None:
    """Print the text as the voice receives it, and what was replaced or left out."""
    settings = speech_options(entry.options)
    script = script_of(
        text,
        markdown=settings.speakable,
        lexicon=settings.lexicon,
        language=settings.language,
        apart=settings.says_sentences_apart,
        phonemes=settings.phoneme_marks,
    )
    for word in script.replaced:
        click.echo(f"{word.written} is pronounced {word.said!r}", err=True)
    if script.ignored:
        click.echo(f"ignored markup: {', '.join(script.ignored)}", err=True)
    for segment in script.segments:
        click.echo(segment)
    if not script.segments:
        click.echo("the text has nothing that can be spoken", err=True)
