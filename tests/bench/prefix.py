"""Time to the first token if the prompt's beginning is known, beside mlx-lm's own server.

    python -m tests.bench.prefix [--model PATH] [--prefix-tokens N] [--rounds N]

Each round has a long system prompt of its own. The first question after it is answered cold, the second one from
memory; then our server starts anew, and the third one is answered from disk, beside a new long prompt that is cold.
What counts is the ratio within a round. The two servers must answer the same, with as many tokens from their caches as
there should be: an error is fast, and so is a prompt that was known after all.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localapi.cli.text_table import table
from tests.bench import client, figures, models
from tests.bench.processes import OURS, PEER, Aside, ours, peer, until

ANSWER_TOKENS = 8
DISK_MB = 1024
LEAST_SHARE = 0.75
"""Share of a prompt that must come from the cache if its beginning is known, and must not if it is new."""
FIRST, SECOND, THIRD = "What is it about?", "Who wrote it?", "How does it end?"

Answered = tuple[client.Answer, client.Answer]
"""Ours and the peer's to the same question."""


@dataclass
class Measured:
    """All rounds, in their order."""

    cold: list[Answered] = field(default_factory=list)
    memory: list[Answered] = field(default_factory=list)
    cold_after: list[client.Answer] = field(default_factory=list)
    disk: list[Answered] = field(default_factory=list)
    """The peer's are from memory, to compare what they say: it knows no disk."""
    starts: list[float] = field(default_factory=list)
    """Seconds until our server had loaded the model: first with an empty folder, then with what was kept."""


def main() -> None:
    """Build the model, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.prefix", description=description)
    parser.add_argument("--model", default="tiny", help="a folder, tiny or middle (default: %(default)s)")
    parser.add_argument("--prefix-tokens", type=int, default=2000, help="roughly (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    words = models.words(arguments.model, arguments.prefix_tokens)
    with tempfile.TemporaryDirectory() as folder:
        path = models.made(arguments.model, Path(folder))
        measured = measure(path, Path(folder) / "kept", words, arguments.rounds)
    for line in report(measured):
        print(line)


def measure(model: Path, folder: Path, words: int, rounds: int) -> Measured:
    """Ask; `folder` is where our server keeps things. The first round, in which things warm up, is left out."""
    known, new = (models.prompts(rounds + 1, words, seed=seed) for seed in ("known", "new"))
    measured, last_ones = Measured(), []
    with Aside() as reader:

        def ask(port: int, name: str, system: str, question: str) -> client.Answer:
            messages = client.conversation(question, system=system)
            return reader(client.ask, port, name, messages, ANSWER_TOKENS)

        with peer(model) as (peer_port, _), started(model, folder, measured.starts) as port:
            for number, system in enumerate(known):

                def both(question: str, *, swap: bool = number % 2 == 1, system: str = system) -> Answered:
                    asked = [(port, OURS), (peer_port, PEER)]
                    got = {name: ask(port, name, system, question) for port, name in (asked[::-1] if swap else asked)}
                    return got[OURS], got[PEER]

                measured.cold.append(both(FIRST))
                measured.memory.append(both(SECOND))
                last_ones.append(ask(peer_port, PEER, system, THIRD))
            _wait_for_files(folder)
        with started(model, folder, measured.starts) as port:
            for system, other, last in zip(known, new, last_ones, strict=True):
                measured.cold_after.append(ask(port, OURS, other, FIRST))
                measured.disk.append((ask(port, OURS, system, THIRD), last))
    for answers in (measured.cold, measured.memory, measured.cold_after, measured.disk):
        del answers[0]
    return measured


@contextlib.contextmanager
def started(model: Path, folder: Path, starts: list[float]) -> Iterator[int]:
    """The port of our server, which keeps things in that folder; adds how long it took to start."""
    # Where systems keep caches: Linux and a Mac.
    env = {"XDG_CACHE_HOME": str(folder), "HOME": str(folder)}
    before = time.perf_counter()
    with ours(model, env=env, disk_mb=DISK_MB) as server:
        starts.append(time.perf_counter() - before)
        yield server.port


def _wait_for_files(folder: Path) -> None:
    """Until our server, which writes when it is idle, has written nothing for a second."""

    def quiet() -> bool:
        if any(folder.rglob("*.tmp")) or not (files := list(folder.rglob("*.safetensors"))):
            return False
        return time.time() - max(file.stat().st_mtime for file in files) > 1

    until(quiet, every=0.2)


def report(measured: Measured) -> Iterator[str]:
    """The table."""
    loads = [f"{seconds:.2f} s" for seconds in measured.starts]
    cold, memory = _firsts(measured.cold), _firsts(measured.memory)
    cold_after = [answer.first_seconds for answer in measured.cold_after]
    disk, _ = _firsts(measured.disk)
    head = ["until the first text", "localapi", "of cold", "mlx_lm.server", "of cold", "aim"]
    rows = [
        ["cold", figures.duration(cold[0]), "", figures.duration(cold[1]), ""],
        ["beginning in memory", *(cell for pair in zip(memory, cold, strict=True) for cell in _beside(*pair)), "0.03"],
        ["cold, after a new start", figures.duration(cold_after)],
        ["beginning on disk", *_beside(disk, cold_after), "", "", "0.1"],
        ["start and load, nothing kept yet", loads[0]],
        ["start and load, with what was kept", loads[1]],
        ["tokens of a prompt", figures.whole(mine.prompt_tokens for mine, _ in [*measured.cold, *measured.disk])],
        ["right answers", figures.share(list(right(measured))), "", "", "", "all"],
    ]
    yield from table(head, [[*row, *[""] * (len(head) - len(row))] for row in rows])


def _firsts(answers: Sequence[Answered]) -> tuple[list[float], list[float]]:
    """Ours, and the peer's."""
    return [mine.first_seconds for mine, _ in answers], [theirs.first_seconds for _, theirs in answers]


def _beside(seconds: Sequence[float], cold: Sequence[float]) -> tuple[str, str]:
    return figures.duration(seconds), figures.ratio(seconds, cold)


def right(measured: Measured) -> Iterator[bool]:
    """Return for each question whether the answers are whole and equal, and reused what they should."""
    alone = [(answer, answer) for answer in measured.cold_after]
    for answers, warm in ((measured.cold, False), (measured.memory, True), (alone, False), (measured.disk, True)):
        for mine, theirs in answers:
            whole = mine.tokens == theirs.tokens == ANSWER_TOKENS and mine.prompt_tokens == theirs.prompt_tokens
            shares = [answer.cached_tokens / answer.prompt_tokens for answer in (mine, theirs)]
            known = all(share > LEAST_SHARE if warm else share < 1 - LEAST_SHARE for share in shares)
            yield whole and known and mine.text == theirs.text


if __name__ == "__main__":
    main()
