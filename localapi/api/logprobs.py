"""Log probabilities of an answer's tokens, in the shape that OpenAI's and Ollama's APIs share."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from localapi.worker.protocol import TokenLogprob, TopLogprob


class LikelyToken(Struct):
    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


def chosen(tokens: Sequence[TokenLogprob]) -> list[ChosenToken]:
    """Return the tokens of an answer with their log probabilities."""
    return [ChosenToken(*_likely(each), [LikelyToken(*_likely(top)) for top in each.top]) for each in tokens]


def _likely(token: TopLogprob) -> tuple[str, float, list[int]]:
    return token.token.decode("utf-8", "replace"), token.logprob, list(token.token)
