"""`localapi bench`: measure the speed of a model on a running server."""

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
from localapi.client.measuring import Level, Workload, prompt, words_for
from localapi.settings import Settings

HEAD: Final = ("streams", "first token", "90 % within", "tokens/s", "per stream", "tokens", "requests", "failed")
MOST_STREAMS: Final = 256
_BAR_CELLS: Final = 50
_WIDE: Final = 80
_AROUND_BAR: Final = 12
"""Characters of a line besides its bar."""
_INTERRUPTED: Final = 130
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class _Numbers(click.ParamType[list[int]]):
    """Whole numbers separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        try:
            numbers = [int(word) for word in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 1,2,4", param, ctx)
        if not all(1 <= number <= MOST_STREAMS for number in numbers):
            self.fail(f"each number must be from 1 to {MOST_STREAMS}; found {value}", param, ctx)
        return list(dict.fromkeys(numbers))


@click.command("bench")
@click.argument("model", required=False, shell_complete=complete_models("chat"))
@click.option(
    "--streams", type=_Numbers(), default="1,2,4,8", show_default=True, help="Numbers of concurrent requests."
)
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True, help="Maximum tokens of a response.")
@click.option(
    "--prompt-tokens", type=click.IntRange(1), default=256, show_default=True, help="Approximate tokens of a prompt."
)
@click.option(
    "--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measurements for each number of streams."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@server_options
def command(
    model: str | None, *, streams: list[int], tokens: int, prompt_tokens: int, rounds: int, as_json: bool, **flags: Any
) -> None:
    """Measure the speed of a model on a running server; by default a loaded model, otherwise demo.

    Shows medians of the time to the first token and of tokens per second. The first request and rounds with a failed
    request are not counted. Ctrl-C shows the results so far.
    """
    server = server_of(Settings.read(**flags))
    if model is None:
        model = first_chat_model(server)
    else:
        check_model(server, model)
    levels = [Level(number) for number in streams]
    complete = False
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        try:
            task = progress.add_task("the first request", total=None)
            load = Workload(server, model, tokens, words_for(server, model, prompt_tokens))
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


def _warm_up(load: Workload, progress: Progress) -> None:
    """Send the first request, and show what it waits for. Raise NoServer or Refused."""
    answer = Answer()
    with closing(answer.pieces(load.server, load.body(prompt(load.words, secrets.token_hex())))) as pieces:
        for piece in pieces:
            if piece.kind == "note":
                progress.update(progress.task_ids[0], description=shown_in_line(piece.text).replace("[", r"\["))


def _measure(load: Workload, levels: Sequence[Level], rounds: int, progress: Progress) -> None:
    run = secrets.token_hex()
    for level in levels:
        for number in range(rounds):
            progress.update(progress.task_ids[0], description=f"{level.streams} concurrent")
            load.measure_round(level, f"{run} {level.streams} {number}")
            progress.advance(progress.task_ids[0], level.streams)


def _report(model: str, levels: Sequence[Level], *, complete: bool, as_json: bool) -> None:
    found = [level.summary() for level in levels if level.requests]
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
        click.echo("interrupted; the measurement is incomplete", err=True)


def _cells(level: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    first = level["first_token_seconds"]
    speeds = [level[name] for name in ("tokens_per_second", "tokens_per_second_per_stream", "tokens_per_answer")]
    return [
        str(level["streams"]), _seconds(first["median"]), _seconds(first["p90"]), *map(decimal, speeds),
        str(level["requests"]), str(level["failed"]),
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def bars(values: Mapping[str, float], *, width: int) -> list[str]:
    """Return a line for each value: its name, a bar proportional to the largest value, and the number."""
    most = max(values.values(), default=0) or 1
    names = max(map(len, values), default=0)
    lines = []
    for name, value in values.items():
        whole, part = divmod(round(value / most * width * 8), 8)
        bar = "█" * whole + _EIGHTHS[part] * (part > 0)
        lines.append(f"{name.rjust(names)} {bar.ljust(width)} {decimal(value)}")
    return lines


def decimal(value: float | None) -> str:
    """Format a number with one decimal if it is below 100, otherwise with none."""
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004  # three digits
