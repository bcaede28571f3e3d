"""`localapi search`: find models on the Hugging Face Hub, and show which fit this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from localapi.backends.model_path import is_downloaded
from localapi.backends.options import FILES_FACTOR
from localapi.cli.pull import found_on_hub
from localapi.cli.text_table import room, table
from localapi.kinds.first_models import USABLE_SHARE
from localapi.system.byte_sizes import readable
from localapi.system.memory import room_for_models


@click.command("search")
@click.argument("text")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Maximum number of models.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(text: str, *, limit: int, as_json: bool) -> None:
    """Search the Hugging Face Hub for models; MLX models come first.

    The size is that of the weights, if the Hub reports it. A model fits if its weights and a conversation fit into
    memory.
    """
    usable = room_for_models(None, USABLE_SHARE)
    found = [_described(model, usable) for model in found_on_hub(text, limit)]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo(f"no model on Hugging Face matches {text!r}", err=True)
        return
    words = {True: "yes", False: "no", None: "unknown"}
    rows = [
        [
            each["repository"], "MLX" if each["mlx"] else "",
            readable(each["size_bytes"]) if each["size_bytes"] else "",
            words[each["fits"]], each["task"] or "", "downloaded" if each["downloaded"] else "",
        ]
        for each in found
    ]  # fmt: skip
    for line in table(["model", "for", "size", "fits", "task", ""], rows, width=room()):
        click.echo(line)
    click.echo("\nadd one with: localapi add NAME")


def _described(model: dict[str, Any], usable: int) -> dict[str, Any]:
    size = model["size_bytes"]
    fits = None if size is None else size * FILES_FACTOR <= usable
    return {**model, "fits": fits, "downloaded": is_downloaded(model["repository"])}
