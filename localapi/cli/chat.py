"""`localapi chat`: a conversation on a terminal, or one question and its answer for a pipe."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any, Final

import click

from localapi.cli import completing
from localapi.cli.asking import Answer, check_model, first_chat_model
from localapi.cli.conversation import Conversation
from localapi.cli.given_text import given_text
from localapi.cli.options import server_of, server_options
from localapi.cli.plain_text import sendable, shown, shown_in_line
from localapi.client import Server
from localapi.settings import Settings

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@click.command("chat")
@click.argument("model", required=False, shell_complete=completing.models("chat"))
@click.argument("question", required=False)
@click.option("--system", metavar="TEXT", default="", help="What the model is told first.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 always answers the same.")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of an answer.")
@click.option("--reasoning-effort", type=click.Choice(EFFORTS), help="How long to think, for models that know it.")
@click.option("--no-history", is_flag=True, help="Do not read or keep the lines that are typed.")
@server_options
def command(
    model: str | None,
    question: str | None,
    *,
    system: str,
    temperature: float | None,
    max_tokens: int | None,
    reasoning_effort: str | None,
    no_history: bool,
    **flags: Any,
) -> None:
    """Chat with a model of a running server; without MODEL, with one that is loaded, or demo.

    With QUESTION, or a question on standard input, print the answer alone and end.
    """
    server = server_of(Settings.read(**flags))
    if model is None:
        model = first_chat_model(server)
    else:
        check_model(server, model)
    parameters = {"temperature": temperature, "max_tokens": max_tokens, "reasoning_effort": reasoning_effort}
    given = {name: value for name, value in parameters.items() if value is not None}
    conversation = Conversation(model, given, system)
    if question is None and sys.stdin.isatty() and sys.stdout.isatty():
        from localapi.cli.chat_session import ChatSession  # noqa: PLC0415  # 0.5 s that one answer does not need

        ChatSession(server, conversation, keep_history=not no_history).run()
        return
    conversation.ask(_question(question))
    _print_answer(server, conversation)


def _question(given: str | None) -> str:
    """The argument, or standard input. Raises click.UsageError where it is empty."""
    text = given_text(given).strip()
    if not text:
        raise click.UsageError("there is no question: give it as an argument or on standard input")
    return text


def _print_answer(server: Server, conversation: Conversation) -> None:
    """Print it as it comes: to a pipe as it is, to a terminal without control characters."""
    answer, to_show = Answer(), shown if sys.stdout.isatty() else sendable
    note = ""
    try:
        with closing(answer.pieces(server, conversation.request())) as pieces:
            for piece in pieces:
                if piece.kind == "text":
                    note = _note("", note)
                    sys.stdout.write(to_show(piece.text))  # click.echo would take parts of the text for colours
                    sys.stdout.flush()
                elif piece.kind == "note":
                    note = _note(shown_in_line(piece.text), note)
    finally:
        _note("", note)
        if answer.text and not answer.text.endswith("\n"):
            click.echo()


def _note(text: str, before: str) -> str:
    """A line on the terminal that says what is waited for, in the place of the one before."""
    if sys.stderr.isatty() and (text or before):
        click.echo(f"\r{' ' * len(before)}\r{text}", nl=False, err=True)
    return text
