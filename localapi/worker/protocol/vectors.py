"""Requests to embedding and reranking models, and their replies."""

from __future__ import annotations

import msgspec


class Embed(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: return a vector for each of these texts."""

    id: int
    inputs: list[str | list[int]]
    """Texts, or the model's tokens, which are used unchanged."""
    dimensions: int | None = None
    """Length of the vectors; None for the model's own."""
    truncate: bool = False
    """True to truncate texts that are too long; otherwise they are refused."""
    input_type: str | None = None
    """Type of the texts, for an engine that has its own prefixes: a model on another server."""


class Rerank(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: score how well each document answers the query."""

    id: int
    query: str
    documents: list[str]
    truncate: bool = True
    """True if documents are truncated, as in Embed. The query never is."""


class Embedded(msgspec.Struct, tag=True):
    """Reply to Embed; nothing follows for this id."""

    id: int
    vectors: list[bytes]
    """One for each input: 32-bit little-endian floating point numbers, of length 1 as a vector."""
    tokens: int
    """Tokens of all inputs, without those that were dropped."""
    truncated: list[int] = []
    """Indices of the inputs that were truncated."""


class Ranked(msgspec.Struct, tag=True):
    """Reply to Rerank; nothing follows for this id."""

    id: int
    scores: list[float]
    """One for each document, from 0 to 1; more is better."""
    tokens: int
    truncated: list[int] = []


VectorRequest = Embed | Rerank
