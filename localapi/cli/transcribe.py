"""`localapi transcribe`: transcribe files with a running server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click

from localapi.backends.openai_body import FormBody
from localapi.cli.asking import in_words
from localapi.cli.options import complete_models, profile_option, server_of, server_options, type_of_path
from localapi.cli.plain_text import shown, shown_in_line
from localapi.cli.temporary_server import or_temporary
from localapi.client import Server
from localapi.errors import NoServer, OperatorError, Refused
from localapi.kinds import TRANSCRIPTION
from localapi.settings import Settings
from localapi.system.atomic_file import replacing
from localapi.system.byte_sizes import readable
from localapi.text.subtitles import Caption, srt, vtt

FORMATS: Final = ("text", "srt", "vtt", "json")
SUFFIXES: Final = {".txt": "text", ".srt": "srt", ".vtt": "vtt", ".json": "json"}
ENDINGS: Final = {kind: suffix for suffix, kind in SUFFIXES.items()}


class CannotTranscribe(OperatorError):
    """A file cannot be read, or its transcript cannot be written."""


@click.command("transcribe")
@click.argument("files", nargs=-1, required=True, type=type_of_path)
@click.option(
    "--model", help="Transcription model.  [default: the first]", shell_complete=complete_models("transcription")
)
@click.option("--language", help="Language spoken, such as en or german.  [default: detected]")
@click.option("--prompt", help="Example text that shows names and style to the model.")
@click.option("--translate", is_flag=True, help="Translate into English.")
@click.option("--words", is_flag=True, help="Include word times; needs --format json.")
@click.option(
    "--format", type=click.Choice(FORMATS), help="Output format.  [default: from the name of OUTPUT, or text]"
)
@click.option(
    "-o",
    "--output",
    type=type_of_path,
    help="File to write, or a folder with one file for each input.  [default: standard output]",
)
@profile_option
@server_options
def command(
    files: tuple[Path, ...],
    model: str | None,
    format: str | None,  # noqa: A002  # OpenAI's word
    output: Path | None,
    *,
    language: str | None,
    prompt: str | None,
    translate: bool,
    words: bool,
    **flags: Any,
) -> None:
    """Transcribe audio and video files.

    The running server transcribes. If no server is running and no address is given, a temporary one is started.
    """
    in_folder = output is not None and output.is_dir()
    if len(files) > 1 and output is not None and not in_folder:
        raise click.UsageError("several files need a folder as --output")
    kind = format or (SUFFIXES.get(output.suffix.lower(), "text") if output is not None and not in_folder else "text")
    if words and kind != "json":
        raise click.UsageError("--words needs --format json")
    fields: dict[str, Any] = {"stream": "true", "response_format": "verbose_json"}
    fields |= {name: value for name, value in (("language", language), ("prompt", prompt)) if value}
    if words:
        fields["timestamp_granularities[]"] = ["segment", "word"]
    server = server_of(Settings.read(**flags))
    start = flags["host"] is None and flags["port"] is None and not server.is_there()
    profile = ["--profile", flags["profile"]] if flags["profile"] is not None else []
    with or_temporary(server, profile, start=start) as server:
        chosen = _model(server, model)
        for file in files:
            target = output / f"{file.stem}{ENDINGS[kind]}" if output is not None and in_folder else output
            # Plain text is shown as it arrives; other formats when they are complete.
            live = kind == "text" and target is None
            done = _transcribed(server, {**fields, "model": chosen["id"]}, file, chosen, translate=translate, live=live)
            if not live:
                _write(_formatted(done, kind), target)


def _model(server: Server, name: str | None) -> Mapping[str, Any]:
    """Return the named model, or the first. Raise CannotTranscribe if there is none."""
    models = [each for each in server.get("/v1/models")["data"] if each.get("kind") == TRANSCRIPTION.name]
    for each in models:
        if name is None or name == each["id"] or name in each["aliases"]:
            return dict(each)
    if not models:
        raise CannotTranscribe(
            f"the server on {server.address} has no transcription model; `localapi add Systran/faster-whisper-small "
            "--kind transcription` adds one"
        )
    known = ", ".join(each["id"] for each in models)
    raise CannotTranscribe(f"{name!r} is not a transcription model of the server, which has: {known}")


def _transcribed(
    server: Server, fields: Mapping[str, Any], file: Path, model: Mapping[str, Any], *, translate: bool, live: bool
) -> dict[str, Any]:
    """Return the last event of a file's transcript. Raise NoServer, Refused and CannotTranscribe."""
    try:
        size = file.stat().st_size
        form = FormBody(fields, str(file), name=file.name, content_type="application/octet-stream")
        headers = form.headers()
    except OSError as error:
        raise CannotTranscribe(f"{file} cannot be read: {error.strerror}") from error
    most = model.get("max_file_bytes") or size
    if size > most:
        raise CannotTranscribe(f"{file} has {readable(size)}; {model['id']} accepts at most {readable(most)}")
    path = f"/v1/audio/{'translations' if translate else 'transcriptions'}"
    show = _progress(file)
    try:
        with closing(server.events(path, form=(headers, form.blocks()))) as events:
            for event in events:
                if event.name == "comment":
                    if event.data.startswith("{"):  # other comments may come from a proxy
                        show(in_words(event.json()))
                    continue
                told = event.json()
                if wrong := told.get("error"):
                    raise Refused(str(wrong.get("message")), status=HTTPStatus.OK, code=wrong.get("code"))
                if told["type"] == "transcript.text.done":
                    return dict(told)
                if live:
                    show("")
                    click.echo(shown(told["delta"]), nl=False)
    finally:
        show("")
        if live:
            click.echo()
    raise NoServer("the server stopped before the transcript was complete; see its log")


def _progress(file: Path) -> Callable[[str], None]:
    """Return a function that replaces the progress line on a terminal. An empty text clears it."""
    terminal = sys.stderr.isatty()

    def show(text: str) -> None:
        if terminal:
            click.echo(f"\r\x1b[K{shown_in_line(f'{file.name}: {text}') if text else ''}", nl=False, err=True)

    return show


def _formatted(done: Mapping[str, Any], kind: str) -> str:
    if kind == "json":
        return json.dumps({k: v for k, v in done.items() if k != "type"}, ensure_ascii=False, indent=2) + "\n"
    if kind == "text":
        return f"{done['text']}\n"
    captions: Iterable[Caption] = [
        Caption(each["start"], each["end"], each["text"]) for each in done.get("segments") or ()
    ]
    return srt(captions) if kind == "srt" else vtt(captions)


def _write(text: str, target: Path | None) -> None:
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        with replacing(target, mode=None) as out:
            out.write(text.encode())
    except OSError as error:
        raise CannotTranscribe(f"{target} cannot be written: {error.strerror}") from error
