"""How fast a model answers, one stream or several at the same time. Failed requests are counted, never averaged in."""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from localapi.client import Server
from localapi.client.streams import Stream, chat_request, read
from localapi.errors import Refused

NINETY: Final = 0.9
_WORDS: Final = (
    *("time", "way", "year", "work", "day", "part", "place", "case", "week", "point", "number", "group", "fact"),
    *("water", "house", "story", "month", "book", "side", "eye", "power", "city", "line", "end", "car", "night"),
)


@dataclass(frozen=True)
class Timing:
    """One complete answer."""

    first_seconds: float
    """From the request to the first text."""
    tokens: int
    tokens_per_second: float | None
    """From the first text on; None where all came at once."""
    prompt_tokens: int
    cached_tokens: int


@dataclass
class Level:
    """All that was measured with one number of streams."""

    streams: int
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """How many requests failed, by what was said."""
    timings: list[Timing] = field(default_factory=list)
    """Of rounds in which nothing failed."""
    speeds: list[float] = field(default_factory=list)
    """Of the same: tokens per second, all streams together, prompts included in the time."""

    def summary(self) -> dict[str, Any]:
        """Medians, and what a script wants; None where nothing was measured."""
        firsts = sorted(timing.first_seconds for timing in self.timings)
        each = [speed for timing in self.timings if (speed := timing.tokens_per_second) is not None]
        return {
            "streams": self.streams,
            "requests": self.requests,
            "failed": self.failures.total(),
            "errors": dict(self.failures),
            "first_token_seconds": {
                "median": statistics.median(firsts) if firsts else None,
                "p90": firsts[math.ceil(NINETY * len(firsts)) - 1] if firsts else None,
            },
            "tokens_per_second": statistics.median(self.speeds) if self.speeds else None,
            "tokens_per_second_per_stream": statistics.median(each) if each else None,
            "tokens_per_answer": statistics.fmean(t.tokens for t in self.timings) if self.timings else None,
            "prompt_tokens": statistics.fmean(t.prompt_tokens for t in self.timings) if self.timings else None,
            "cached_tokens": statistics.fmean(t.cached_tokens for t in self.timings) if self.timings else None,
        }


@dataclass(frozen=True)
class Load:
    """What is asked, and of whom."""

    server: Server
    model: str
    tokens: int
    """Most of an answer."""
    words: int
    """Of a prompt."""

    def body(self, prompt: str) -> dict[str, Any]:
        """A request for one answer."""
        message = {"role": "user", "content": prompt}
        return {"model": self.model, "messages": [message], "max_tokens": self.tokens, "temperature": 0}

    def measure_round(self, level: Level, seed: str) -> None:
        """Ask on all streams at once, with prompts that nobody has seen, and put what came into the level."""
        requests = [self._request(prompt(self.words, f"{seed} {number}")) for number in range(level.streams)]
        failures = Counter[str]()
        with contextlib.ExitStack() as stack:
            started, streams = time.perf_counter(), list[Stream]()
            for request in requests:
                try:
                    streams.append(stack.enter_context(Stream(self.server.host_and_port, request)))
                except OSError as error:
                    failures[f"no connection: {error.strerror or error}"] += 1
            read(streams)
        failures.update(failure for stream in streams if (failure := stream.failure()))
        level.requests += len(requests)
        level.failures += failures
        if not failures:
            level.timings += map(_timing, streams)
            ended = max(stream.ended for stream in streams)
            level.speeds.append(sum(stream.tokens() for stream in streams) / (ended - started))

    def _request(self, text: str) -> bytes:
        return chat_request(urllib.parse.urlsplit(self.server.address).netloc, self.body(text), self.server.headers)


def _timing(stream: Stream) -> Timing:
    usage, moments = stream.usage(), stream.moments()
    first = moments[0] if moments else stream.ended  # an answer without text
    writing = moments[-1] - first if moments else 0.0
    tokens = usage["completion_tokens"]
    return Timing(
        first_seconds=first - stream.sent,
        tokens=tokens,
        tokens_per_second=(tokens - 1) / writing if writing and tokens > 1 else None,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
    )


def prompt(words: int, seed: str) -> str:
    """A text of so many words. Texts of different seeds share no beginning, so that no cache helps."""
    rng = random.Random(seed)  # noqa: S311  # nothing is secret
    return " ".join(rng.choices(_WORDS, k=words))


def words_for(server: Server, model: str, tokens: int) -> int:
    """How many words of `prompt` take so many tokens of the model; as many words where it does not count."""
    try:
        counted = int(server.post("/v1/tokenize", {"model": model, "text": prompt(tokens, "")})["count"])
    except (Refused, KeyError, TypeError):
        return tokens
    return max(1, round(tokens * tokens / max(counted, 1)))


def summaries(levels: Sequence[Level]) -> Iterator[dict[str, Any]]:
    """Of those for which something was asked."""
    yield from (level.summary() for level in levels if level.requests)
