"""`localapi bench`: how fast a model of a running server answers, as a table and as bars."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from localapi.cli.asking import Answer, check_model, first_chat_model
from localapi.cli.options import complete_models, server_of, server_options
from localapi.cli.plain_text import shown_in_line
from localapi.cli.text_table import room, table
from localapi.client.measuring import Level, Load, prompt, summaries, words_for
from localapi.settings import Settings

HEAD: Final = ("streams", "first token", "90 % within", "tokens/s", "per stream", "tokens", "requests", "failed")
MOST_STREAMS: Final = 256
_BAR_CELLS: Final = 50
_WIDE: Final = 80
_AROUND_BAR: Final = 12
"""Characters of a line beside its bar: number of streams, tokens per second."""
_INTERRUPTED: Final = 130
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class _Numbers(click.ParamType[list[int]]):
    """Whole numbers with commas between them."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            numbers = [int(word) for word in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list such as 1,2,4", param, ctx)
        if not all(1 <= number <= MOST_STREAMS for number in numbers):
            self.fail(f"each is from 1 to {MOST_STREAMS}; found {value}", param, ctx)
        return list(dict.fromkeys(numbers))


@click.command("bench")
@click.argument("model", required=False, shell_complete=complete_models("chat"))
@click.option(
    "--streams", type=_Numbers(), default="1,2,4,8", show_default=True, help="Numbers of concurrent requests."
)
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True, help="Maximum tokens of an answer.")
@click.option(
    "--prompt-tokens", type=click.IntRange(1), default=256, show_default=True, help="Approximate length of a prompt."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measurements for each number of requests."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@server_options
def command(
    model: str | None, *, streams: list[int], tokens: int, prompt_tokens: int, rounds: int, as_json: bool, **flags: Any
) -> None:
    """Measure how fast a model of a running server answers; by default a loaded one, or demo.

    Shows medians of the time to the first token and of tokens per second. The first request is not measured, and
    neither is a round with a failed request. Ctrl-C shows the results so far.
    """
    server = server_of(Settings.read(**flags))
    if model is None:
        model = first_chat_model(server)
    else:
        check_model(server, model)
    levels = [Level(number) for number in streams]
    complete = False
    with _progress() as progress:
        try:
            task = progress.add_task("the first request", total=None)
            load = Load(server, model, tokens, words_for(server, model, prompt_tokens))
            _warm_up(load, progress)
            progress.update(task, total=rounds * sum(streams), description=model)
            _measure(load, levels, rounds, progress)
            complete = True
        except KeyboardInterrupt:
            pass
    _report(model, levels, complete=complete, as_json=as_json)
    if not complete:
        raise click.exceptions.Exit(_INTERRUPTED)
    if any(level.failures for level in levels):
        raise click.exceptions.Exit(1)


def _progress() -> Progress:
    """On the terminal, and gone afterwards; nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _warm_up(load: Load, progress: Progress) -> None:
    """Have the model loaded, and show what it waits for. Raise NoServer or Refused."""
    answer = Answer()
    with closing(answer.pieces(load.server, load.body(prompt(load.words, secrets.token_hex())))) as pieces:
        for piece in pieces:
            if piece.kind == "note":
                progress.update(progress.task_ids[0], description=shown_in_line(piece.text).replace("[", r"\["))


def _measure(load: Load, levels: Sequence[Level], rounds: int, progress: Progress) -> None:
    run = secrets.token_hex()
    for level in levels:
        for number in range(rounds):
            progress.update(progress.task_ids[0], description=f"{level.streams} at the same time")
            load.measure_round(level, f"{run} {level.streams} {number}")
            progress.advance(progress.task_ids[0], level.streams)


def _report(model: str, levels: Sequence[Level], *, complete: bool, as_json: bool) -> None:
    found = list(summaries(levels))
    if as_json:
        click.echo(json.dumps({"model": model, "complete": complete, "levels": found}, indent=2))
        return
    if not found:
        click.echo("nothing was measured", err=True)
        return
    for line in table(HEAD, [_cells(level) for level in found], width=room()):
        click.echo(line)
    speeds = {str(level["streams"]): level["tokens_per_second"] for level in found if level["tokens_per_second"]}
    if speeds:
        click.echo("\ntokens/s by streams")
        for line in bars(speeds, width=min(_BAR_CELLS, (room() or _WIDE) - _AROUND_BAR)):
            click.echo(line)
    for level in found:
        for message, count in level["errors"].items():
            click.echo(f"{level['streams']} streams: {count} failed: {shown_in_line(message)}", err=True)
    if not complete:
        click.echo("ended with Ctrl-C before all was measured", err=True)


def _cells(level: dict[str, Any]) -> list[str]:
    first = level["first_token_seconds"]
    return [
        str(level["streams"]), _seconds(first["median"]), _seconds(first["p90"]), _number(level["tokens_per_second"]),
        _number(level["tokens_per_second_per_stream"]), _number(level["tokens_per_answer"]), str(level["requests"]),
        str(level["failed"]),
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else decimal(value)


def bars(values: Mapping[str, float], *, width: int) -> list[str]:
    """Return a line for each value: its name, a bar in proportion to the largest value, and the number."""
    most = max(values.values(), default=0) or 1
    names = max(map(len, values), default=0)
    return [
        f"{name.rjust(names)} {_bar(value / most * width).ljust(width)} {decimal(value)}"
        for name, value in values.items()
    ]


def decimal(value: float) -> str:
    """Format a number with one decimal if it is below 100, else with none."""
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004  # three digits


def _bar(length: float) -> str:
    whole, part = divmod(round(length * 8), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")
