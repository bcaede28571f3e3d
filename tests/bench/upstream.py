"""Cost of reaching a model through this server: the same answers, asked directly and through ours.

    python -m tests.bench.upstream [--of NAME,NAME] [--model PATH] [--streams N,N] [--tokens N] [--rounds N]

The other server is localapi, then mlx_lm.server, then one that computes nothing and begins each answer after the same
time: its first bytes show what is added, without the noise of a model. In each round both ways get new prompts, in
changing order.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from localapi.cli.text_table import table
from tests.bench import client, figures, models
from tests.bench import scripted as script
from tests.bench.processes import OURS, PEER, Aside, ours, peer, scripted
from tests.server import serving


@dataclass(frozen=True)
class Way:
    """A place to ask."""

    port: int
    model: str
    processes: tuple[psutil.Process, ...] = ()
    """Ours, if they stand between."""

    def cpu_seconds(self) -> float:
        """Return the processor time of our processes."""
        return sum(each.cpu_times().user + each.cpu_times().system for each in self.processes)


@dataclass(frozen=True)
class Round:
    """One round's figures: of both ways, directly first."""

    speeds: tuple[float, float]
    firsts: tuple[float, float]
    """Seconds until all streams have begun."""
    cpu_seconds: float
    """Processor time of our process per token that went through it."""


def main() -> None:
    """Build the model, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.upstream", description=description)
    parser.add_argument("--of", default="localapi,mlx_lm.server,scripted", help="upstreams (default: %(default)s)")
    parser.add_argument("--model", default="middle", help="a folder, tiny or middle (default: %(default)s)")
    parser.add_argument("--streams", default="1,16", help="numbers of streams (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, Aside() as reader:
        path = models.made(arguments.model, Path(folder))
        for name, direct, through in ways(path, arguments.of.split(",")):
            for streams in map(int, arguments.streams.split(",")):
                rounds = list(measured(reader, (direct, through), streams, arguments.tokens, arguments.rounds))
                rows.append(row(f"{name}, {streams}", rounds))
    head = [
        "upstream, streams",
        "tokens/s",
        "through us",
        "through us / directly",
        "first byte",
        "later by",
        "our CPU per token",
    ]
    for line in table(head, rows):
        print(line)


def ways(model: Path, names: Sequence[str]) -> Iterator[tuple[str, Way, Way]]:
    """Each other server, and both ways to it."""
    if "localapi" in names:
        with ours(model) as server, through(server.port, OURS) as way:
            yield "localapi", Way(server.port, OURS), way
    if "mlx_lm.server" in names:
        with peer(model) as (port, _), through(port, PEER) as way:
            yield "mlx_lm.server", Way(port, PEER), way
    if "scripted" in names:
        with scripted() as port, through(port, script.MODEL) as way:
            yield "scripted", Way(port, script.MODEL), way


@contextlib.contextmanager
def through(port: int, model: str) -> Iterator[Way]:
    """Our server with an entry that has the model there."""
    entry = {"backend": "openai", "url": f"http://127.0.0.1:{port}", "model": model, "preload": True}
    manifest = json.dumps({"chat": {"away": entry}})
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), manifest) as server:
        server.wait_for("away: loaded")
        yield Way(server.port, "away", (psutil.Process(server.process.pid),))


def measured(reader: Aside, both: Sequence[Way], streams: int, tokens: int, rounds: int) -> Iterator[Round]:
    """Yield each round; the first, in which things warm up, is left out."""
    for number in range(rounds + 1):
        got: dict[int, client.Answers] = {}
        computed: dict[int, float] = {}
        for at in (0, 1) if number % 2 else (1, 0):
            way = both[at]
            prompts = models.prompts(streams, 20, seed=f"{streams} {number} {at}")
            before = way.cpu_seconds()
            answers = got[at] = reader(client.fetch, way.port, way.model, prompts, tokens)
            assert answers.tokens == streams * tokens, answers
            computed[at] = (way.cpu_seconds() - before) / answers.tokens
        if number:
            yield Round(
                (got[0].tokens / got[0].seconds, got[1].tokens / got[1].seconds),
                (got[0].first_seconds, got[1].first_seconds),
                computed[1],
            )


def row(name: str, rounds: Sequence[Round]) -> list[str]:
    """Medians, and the median of each round's ratio and difference."""
    directly, away = ([each.speeds[at] for each in rounds] for at in (0, 1))
    later = [1000 * (each.firsts[1] - each.firsts[0]) for each in rounds]
    return [
        name,
        f"{statistics.median(directly):.0f}",
        f"{statistics.median(away):.0f}",
        figures.ratio(away, directly),
        figures.duration([each.firsts[0] for each in rounds]),
        f"{statistics.median(later):.1f} ms ({min(later):.1f} to {max(later):.1f})",
        f"{1e6 * statistics.median(each.cpu_seconds for each in rounds):.0f} µs",
    ]


if __name__ == "__main__":
    main()
