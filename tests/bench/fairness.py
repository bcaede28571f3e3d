"""Delay of a running answer by a long prompt, beside mlx-lm's own server.

    python -m tests.bench.fairness [--model PATH] [--prompt-tokens N] [--rounds N]

An answer without end is streamed, and a second client sends the long prompt. What counts is the longest time without
news for the first client until the second one has its first text, and how long that takes. In each round both servers
get the same, one after the other and in changing order. They must answer the same, too: a server that fails is fast.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localapi.cli.text_table import table
from tests.bench import client, figures, models
from tests.bench.processes import OURS, PEER, Aside, ours, peer

ANSWER_TOKENS = 8
"""Tokens of the answer to the long prompt."""
ALONE_SECONDS = 1.0
"""Seconds for which the running answer has the server to itself."""


@dataclass(frozen=True)
class Measured:
    """One server's round."""

    running: client.Answer
    late: client.Answer

    @property
    def gaps(self) -> Sequence[float]:
        """Gaps of the running answer, until the long prompt's first text."""
        return self.running.gaps(self.late.sent, self.late.moments[0])

    @property
    def gaps_before(self) -> Sequence[float]:
        return self.running.gaps(self.running.sent, self.late.sent)

    def same(self, other: Measured) -> bool:
        """Return True if both got whole and equal answers, as far as the running ones went."""
        a, b = sorted([self.running.text, other.running.text], key=len)
        whole = self.late.tokens == other.late.tokens == ANSWER_TOKENS
        return whole and self.late.text == other.late.text and bool(a) and b.startswith(a)


def main() -> None:
    """Build the model, measure, print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fairness", description=description)
    parser.add_argument("--model", default="tiny", help="a folder, tiny or middle (default: %(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=8000, help="roughly (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    arguments = parser.parse_args()
    words = models.words(arguments.model, arguments.prompt_tokens)
    with tempfile.TemporaryDirectory() as folder:
        path = models.made(arguments.model, Path(folder))
        rounds = list(measured(path, words, arguments.rounds))
    for line in report(rounds):
        print(line)


def measured(model: Path, words: int, rounds: int) -> Iterator[tuple[Measured, Measured]]:
    """Ours and the peer's, round by round."""
    with Aside() as reader, ours(model) as server, peer(model) as (peer_port, _):
        them = [(server.port, OURS), (peer_port, PEER)]
        for port, name in them:
            reader(client.fetch, port, name, ["Hello"], ANSWER_TOKENS)  # things warm up
        for number in range(rounds):
            running, late = (models.prompts(1, count, seed=f"{number}")[0] for count in (20, words))
            got = {}
            for port, name in them if number % 2 else them[::-1]:
                got[name] = Measured(*reader(
                    client.interrupt, port, name, client.conversation(running), client.conversation(late),
                    seconds=ALONE_SECONDS, max_tokens=ANSWER_TOKENS,
                ))  # fmt: skip
                time.sleep(1)  # the server notices that nobody reads the running answer any more
            yield got[OURS], got[PEER]


def report(rounds: Sequence[tuple[Measured, Measured]]) -> Iterator[str]:
    """The table."""

    def row(what: str, seconds: Callable[[Measured], float], aim: str = "") -> Sequence[str]:
        mine, theirs = ([seconds(measured) for measured in side] for side in zip(*rounds, strict=True))
        return [what, figures.duration(mine), figures.duration(theirs), figures.ratio(mine, theirs), aim]

    same = [mine.same(theirs) for mine, theirs in rounds]
    sizes = [figures.whole(measured.late.prompt_tokens for measured in side) for side in zip(*rounds, strict=True)]
    yield from table(
        ["medians", "localapi", "mlx_lm.server", "ratio", "aim"],
        [
            row("longest gap of the running answer", lambda measured: max(measured.gaps), "0.05"),
            row("its mean gap", lambda measured: statistics.fmean(measured.gaps)),
            row("its median gap", lambda measured: statistics.median(measured.gaps)),
            row("its median gap before", lambda measured: statistics.median(measured.gaps_before)),
            row("first text after the long prompt", lambda measured: measured.late.first_seconds, "1.15"),
            ["tokens of that prompt", *sizes, "", ""],
            ["rounds in which both answered the same", figures.share(same), "", "", "all"],
        ],
    )


if __name__ == "__main__":
    main()
