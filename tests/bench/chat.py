"""Tokens per second through HTTP, beside mlx-lm without a server and beside mlx-lm's own server.

    python -m tests.bench.chat [--model NAME] [--streams 1,4,8,16] [--rounds N] [--checkout NAME=FOLDER]

In each round every contender answers prompts of the same length, one after the other and in changing order; what
counts is the ratio within a round, because the machine may be busy with other things. All have the same model in
memory, and idle while another one is measured. `--checkout` adds another source tree of this project. `--same-blas`
gives all of them the OpenBLAS that our workers load, so that what the library gains is not counted. Models with random
weights repeat themselves, which `--speculation off` leaves out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from localapi.cli.text_table import table
from tests.bench import client, direct, models, smollm2
from tests.bench.processes import OURS, PEER, Aside, ours, peer


@dataclass(frozen=True)
class Measured:
    """One contender's round."""

    speed: float
    """Tokens per second, all streams together, prompts included in the time."""
    cpu_ms: Sequence[float] = ()
    """CPU time per token of each of its processes: steadier than the clock on a busy machine."""
    first_seconds: float | None = None
    tokens_per_chunk: float | None = None


@dataclass(frozen=True)
class Contender:
    """Something that answers."""

    ask: Callable[[Sequence[str], int], Measured]
    processes: Sequence[psutil.Process]

    def measure(self, prompts: Sequence[str], tokens: int) -> Measured:
        before = [sum(process.cpu_times()[:2]) for process in self.processes]
        measured = self.ask(prompts, tokens)
        used = [sum(process.cpu_times()[:2]) - b for process, b in zip(self.processes, before, strict=True)]
        return replace(measured, cpu_ms=[1000 * seconds / (len(prompts) * tokens) for seconds in used])


def main() -> None:
    """Build the models, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chat", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", action="append", help="a folder, smollm2, tiny or middle (default: the last two)")
    parser.add_argument("--streams", default="1,4,8,16", help="numbers of streams (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer (default: %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=200, help="roughly (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--checkout", action="append", default=[], metavar="NAME=FOLDER", help="another source tree")
    parser.add_argument("--same-blas", action="store_true", help="our BLAS for mlx-lm and its server, too")
    parser.add_argument("--speculation", default="auto", help="off: each token alone, as the others do (default: auto)")
    parser.add_argument("--skip-peer", action="store_true", help="leave mlx_lm.server out")
    arguments = parser.parse_args()
    checkouts = dict(pair.split("=", 1) for pair in arguments.checkout)
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.model or list(models.SIZES):
            path = smollm2.made(Path(folder))["float32"] if model == "smollm2" else models.made(model, Path(folder))
            words = models.words(model, arguments.prompt_tokens)
            with_peer, on_our_blas = not arguments.skip_peer, arguments.same_blas
            with contenders(
                path, checkouts, with_peer=with_peer, on_our_blas=on_our_blas, speculation=arguments.speculation
            ) as them:
                for streams in map(int, arguments.streams.split(",")):
                    rounds = list(_rounds(them, streams, words, arguments.tokens, arguments.rounds))
                    report(f"{model}, {streams} streams of {arguments.tokens} tokens", rounds)


@contextlib.contextmanager
def contenders(
    model: Path, checkouts: dict[str, str], *, with_peer: bool, on_our_blas: bool, speculation: str
) -> Iterator[dict[str, Contender]]:
    """Everything that answers, loaded; by name, ours first."""
    with contextlib.ExitStack() as stack:
        reader, python = stack.enter_context(Aside()), stack.enter_context(Aside())
        if on_our_blas:
            python(direct.use_our_blas)

        def over_http(port: int, name: str, processes: Sequence[psutil.Process]) -> Contender:
            def ask(prompts: Sequence[str], tokens: int) -> Measured:
                got = reader(client.fetch, port, name, prompts, tokens)
                chunk = got.tokens / max(got.chunks, 1)
                return Measured(got.tokens / got.seconds, (), got.first_seconds, chunk)

            return Contender(ask, processes)

        def in_python(prompts: Sequence[str], tokens: int) -> Measured:
            seconds, generated = python(direct.generate, str(model), prompts, tokens, batch=len(prompts) > 1)
            return Measured(generated / seconds)

        them: dict[str, Contender] = {}
        for name, checkout in {"localapi": str(Path(__file__).parents[2]), **checkouts}.items():
            server = stack.enter_context(ours(model, env={"PYTHONPATH": checkout}, speculation=speculation))
            them[name] = over_http(server.port, OURS, [psutil.Process(server.process.pid), *server.workers()])
        them["mlx-lm in Python"] = Contender(in_python, [psutil.Process(python(os.getpid))])
        if with_peer:
            port, pid = stack.enter_context(peer(model, on_our_blas=on_our_blas))
            them["mlx_lm.server"] = over_http(port, PEER, [psutil.Process(pid)])
        yield them


def _rounds(
    them: dict[str, Contender], streams: int, words: int, tokens: int, rounds: int
) -> Iterator[dict[str, Measured]]:
    """Measure each, round by round; the first round, in which things warm up, is left out."""
    names = list(them)
    for number in range(rounds + 1):
        order = names[number % len(names) :] + names[: number % len(names)]
        # Everybody gets new texts: nobody gains from a prefix that it knows.
        got = {
            name: them[name].measure(models.prompts(streams, words, seed=f"{streams} {number}"), tokens)
            for name in order
        }
        if number:
            yield {name: got[name] for name in names}


def report(title: str, rounds: Sequence[dict[str, Measured]]) -> None:
    """Medians and the median of each round's ratio; and the best rounds, which other programs disturbed least."""
    ours = next(iter(rounds[0]))
    head = ["", "tokens/s", "best", "first byte", "tokens/chunk", "CPU ms/token", f"{ours} is, times this", "best"]
    rows = []
    for name in rounds[0]:
        speeds = [got[name].speed for got in rounds]
        ratios = sorted(got[ours].speed / got[name].speed for got in rounds)
        firsts = [s for got in rounds if (s := got[name].first_seconds) is not None]
        used_by_process = zip(*(got[name].cpu_ms for got in rounds), strict=True)
        chunks = [c for got in rounds if (c := got[name].tokens_per_chunk) is not None]
        rows.append([
            name,
            f"{statistics.median(speeds):.0f}",
            f"{max(speeds):.0f}",
            f"{1000 * statistics.median(firsts):.0f} ms" if firsts else "",
            f"{statistics.median(chunks):.1f}" if chunks else "",
            " + ".join(f"{statistics.fmean(used):.2f}" for used in used_by_process),
            "" if name == ours else f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            "" if name == ours else f"{max(got[ours].speed for got in rounds) / max(speeds):.2f}",
        ])  # fmt: skip
    print(f"\n{title}, {len(rounds)} rounds")
    for line in table(head, rows):
        print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
