"""Tokens per second with several tokens of an answer at once, beside one after the other, through HTTP.

    python -m tests.bench.speculation [--model middle|smollm2|PATH] [--streams 1,4] [--rounds N]

One server has the model twice: as usual, and with `speculation: off`. Four tasks: an answer in the form of a JSON
schema, a text that is to be repeated, the same number of tokens without a form, and the same sampled, where nothing
repeats. What counts is the ratio within a round, and that of the workers' processor time, which other programs affect
less. Prompts are asked again and again, so that their time does not count.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from localapi.cli.text_table import table
from tests.bench import client, models, smollm2
from tests.bench.figures import ratio
from tests.bench.processes import Aside
from tests.server import Server, serving

MANIFEST: Final = """
chat:
  several: {{backend: mlx-lm, path: '{path}', preload: true, cpu_weights: {weights}}}
  single: {{backend: mlx-lm, path: '{path}', preload: true, cpu_weights: {weights}, speculation: 'off'}}
"""
TEXT: Final = (
    "The harbour master, Ms. Aurelia Fontaine-Okafor, recorded the following vessels on 3 March: the Northern "
    "Kittiwake with 412 crates of oranges, the Saltwater Juniper with 87 barrels of tar, and the Old Cartographer "
    "with nothing but a parrot. She signed the ledger at half past six and locked the lighthouse door."
)
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "recipient_full_name": {"type": "string", "maxLength": 24},
        "delivery_address": {
            "type": "object",
            "properties": {
                "street_and_house_number": {"type": "string", "maxLength": 24},
                "postal_code": {"type": "string", "pattern": "^[0-9]{5}$"},
                "country": {"enum": ["France", "Germany", "Nigeria", "Peru"]},
            },
            "required": ["street_and_house_number", "postal_code", "country"],
            "additionalProperties": False,
        },
        "shipping_method": {"enum": ["standard_parcel", "express_courier", "collection_at_the_shop"]},
        "number_of_items": {"type": "integer", "minimum": 1, "maximum": 99},
        "gift_wrapping_requested": {"type": "boolean"},
        "notification_preferences": {
            "type": "object",
            "properties": {"send_email": {"type": "boolean"}, "send_text_message": {"type": "boolean"}},
            "required": ["send_email", "send_text_message"],
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
SCHEMA["required"] = list(SCHEMA["properties"])
TASKS: Final = ("schema", "copy", "free", "sampled")
FORM: Final = {"type": "json_schema", "json_schema": {"name": "order", "schema": SCHEMA, "strict": True}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.speculation", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--model", default="middle", help="a folder, tiny, middle or smollm2 (default: %(default)s)")
    parser.add_argument("--tasks", default=",".join(TASKS), help="default: %(default)s")
    parser.add_argument("--streams", default="1,4", help="numbers of streams (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=120, help="at most, of each answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--weights", default="auto", help="cpu_weights of the entries (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Aside() as reader:
        if arguments.model == "smollm2":
            path = smollm2.made(Path(folder))["float32"]
        else:
            path = models.made(arguments.model, Path(folder))
        with _server(path, arguments.weights) as server:
            for streams in map(int, arguments.streams.split(",")):
                _measure(server, reader, streams, arguments)


@contextlib.contextmanager
def _server(path: Path, weights: str) -> Iterator[Server]:
    manifest = MANIFEST.format(path=path, weights=weights)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), manifest) as server:
        for name in ("several", "single"):
            server.wait_for(f"{name}: loaded")
        yield server


def _measure(server: Server, reader: Aside, streams: int, arguments: argparse.Namespace) -> None:
    rounds, tokens = arguments.rounds, arguments.tokens

    workers = {name: psutil.Process(server.model(name)["place"]["pid"]) for name in ("several", "single")}

    def measured(name: str, task: str) -> tuple[float, float]:
        """Tokens per second, and tokens per second of the worker's processor time."""
        prompts, fields = _task(task, streams)
        before = sum(workers[name].cpu_times()[:2])
        got = reader(client.fetch, server.port, name, prompts, tokens, **fields)
        return got.tokens / got.seconds, got.tokens / (sum(workers[name].cpu_times()[:2]) - before)

    tasks = arguments.tasks.split(",")
    found: dict[tuple[str, str], list[tuple[float, float]]] = {
        (name, task): [] for name in ("several", "single") for task in tasks
    }
    for number in range(rounds + 2):  # in the first ones, prompts are computed, and what steps cost is learnt
        for name, task in sorted(found, reverse=bool(number % 2)):
            both = measured(name, task)
            if number > 1:
                found[name, task].append(both)
    rows = []
    for task in tasks:
        (several, several_cpu), (single, single_cpu) = (
            list(zip(*found[name, task], strict=True)) for name in ("several", "single")
        )
        medians = [f"{statistics.median(each):.1f}" for each in (several, single)]
        rows.append([task, *medians, ratio(several, single), ratio(several_cpu, single_cpu)])
    told = server.model("several")["speculation"]
    print(f"\n{arguments.model}, {streams} streams of up to {tokens} tokens, {rounds} rounds; {json.dumps(told)}")
    for line in table(["", "tokens/s", "one by one", "times", "times per CPU second"], rows):
        print(f"  {line}", flush=True)


def _task(task: str, streams: int) -> tuple[list[str], dict[str, Any]]:
    """Return the prompts, each one different, and the other fields of the requests."""
    match task:
        case "schema":
            return [f"Make up order number {n} of an online shop, as JSON." for n in range(streams)], {
                "response_format": FORM
            }
        case "copy":
            return [f"Repeat this text exactly, word for word:\n\n{n}. {TEXT}" for n in range(1, streams + 1)], {}
        case "sampled":
            prompts = [f"Tell me something new about the number {n}." for n in range(streams)]
            return prompts, {"temperature": 1, "top_p": 1}
        case _:
            return [f"Tell me something about the number {n}." for n in range(streams)], {}


if __name__ == "__main__":
    main()
