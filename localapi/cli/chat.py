"""`localapi chat`: a conversation on a terminal, or one question and its response through a pipe."""

from __future__ import annotations

import base64
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click

from localapi.cli.asking import Answer, check_model, first_chat_model
from localapi.cli.conversation import CannotSay, Conversation
from localapi.cli.options import complete_models, given_text, server_of, server_options
from localapi.cli.plain_text import sendable, shown, shown_in_line
from localapi.client import Server
from localapi.settings import Settings

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@click.command("chat")
@click.argument("model", required=False, shell_complete=complete_models("chat"))
@click.argument("question", required=False)
@click.option("--system", metavar="TEXT", default="", help="System prompt.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="Randomness; 0 always takes the likeliest token.")
@click.option("--max-tokens", type=click.IntRange(1), help="Maximum tokens of a response.")
@click.option("--reasoning-effort", type=click.Choice(EFFORTS), help="Amount of reasoning, if the model supports it.")
@click.option(
    "--image",
    "images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Image to send with the first question; can be repeated.",
)
@click.option(
    "--audio",
    "recordings",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Recording to send with the first question; can be repeated.",
)
@click.option("--no-history", is_flag=True, help="Do not read or save the input history.")
@server_options
def command(
    model: str | None,
    question: str | None,
    *,
    system: str,
    temperature: float | None,
    max_tokens: int | None,
    reasoning_effort: str | None,
    images: tuple[Path, ...],
    recordings: tuple[Path, ...],
    no_history: bool,
    **flags: Any,
) -> None:
    """Chat with a model of a running server; by default a loaded model, otherwise demo.

    With QUESTION, or a question on standard input, print only the response and exit.
    """
    server = server_of(Settings.read(**flags))
    if model is None:
        model = first_chat_model(server)
    else:
        check_model(server, model)
    parameters = {"temperature": temperature, "max_tokens": max_tokens, "reasoning_effort": reasoning_effort}
    given = {name: value for name, value in parameters.items() if value is not None}
    parts = [*map(_image_part, images), *map(_audio_part, recordings)]
    conversation = Conversation(model, given, system, media=parts)
    if question is None and sys.stdin.isatty() and sys.stdout.isatty():
        from localapi.cli.chat_session import ChatSession  # noqa: PLC0415  # 0.5 s that one answer does not need

        ChatSession(server, conversation, keep_history=not no_history).run()
        return
    text = given_text(question).strip()
    if not text:
        raise click.UsageError("no question given; pass it as an argument or on standard input")
    conversation.ask(text)
    _print_answer(server, conversation)


def _image_part(path: Path) -> dict[str, Any]:
    """Return an image as a content part. The server detects its format."""
    return {"type": "image_url", "image_url": {"url": f"data:image;base64,{_base64(path)}"}}


def _audio_part(path: Path) -> dict[str, Any]:
    """Return a recording as a content part. The server detects its format."""
    return {"type": "input_audio", "input_audio": {"data": _base64(path), "format": path.suffix[1:].lower() or "wav"}}


def _base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise CannotSay(f"{path} cannot be read: {error.strerror}") from None


def _print_answer(server: Server, conversation: Conversation) -> None:
    """Print the response as it arrives: unchanged to a pipe, without control characters to a terminal."""
    answer, to_show = Answer(), shown if sys.stdout.isatty() else sendable
    note = ""
    try:
        with closing(answer.pieces(server, conversation.request())) as pieces:
            for piece in pieces:
                if piece.kind == "text":
                    note = _note("", note)
                    sys.stdout.write(to_show(piece.text))  # click.echo would interpret parts of the text as colours
                    sys.stdout.flush()
                elif piece.kind == "note":
                    note = _note(shown_in_line(piece.text), note)
    finally:
        _note("", note)
        if answer.text and not answer.text.endswith("\n"):
            click.echo()


def _note(text: str, before: str) -> str:
    """Replace the note on the terminal about what the request waits for, and return the new one."""
    if sys.stderr.isatty() and (text or before):
        click.echo(f"\r{' ' * len(before)}\r{text}", nl=False, err=True)
    return text
