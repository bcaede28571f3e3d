"""Log probabilities of generated tokens, in the shape shared by OpenAI's and Ollama's APIs."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from localapi.worker.protocol import TokenLogprob, TopLogprob


class LikelyToken(Struct):
    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """Generated token, with the likeliest alternatives."""

    top_logprobs: list[LikelyToken]


def chosen(tokens: Sequence[TokenLogprob]) -> list[ChosenToken]:
    """Return generated tokens with their log probabilities."""
    return [ChosenToken(*_likely(each), [LikelyToken(*_likely(top)) for top in each.top]) for each in tokens]


def _likely(token: TopLogprob) -> tuple[str, float, list[int]]:
    return token.token.decode("utf-8", "replace"), token.logprob, list(token.token)
