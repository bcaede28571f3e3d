"""Turn tokens into text one at a time: the same text that the tokenizer gives for all of them, in whole characters.

mlx-lm's own streaming detokenizers are not used: they raise KeyError for characters outside the byte alphabet, treat a
NUL byte as missing, and trim spaces. This module knows no MLX. A tokenizer is what transformers calls a fast one.

Tokens that a model marks as special never become text, unless they are markers that a later stage reads (`<think>`,
`<tool_call>`). Spaces before punctuation are kept as generated (`clean_up_tokenization_spaces` is off: it breaks code).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection
from typing import Any, Protocol

_PROBE = "Hello, wörld!\n\n 1 2\t漢字 🙂 ."
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_REPLACEMENT = "\ufffd"
_UTF8_DECODER = codecs.getincrementaldecoder("utf-8")


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that detokenizing needs."""

    @property
    def all_special_ids(self) -> list[int]: ...
    @property
    def added_tokens_decoder(self) -> dict[int, Any]: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, token_ids: list[int], *, clean_up_tokenization_spaces: bool) -> str: ...
    def convert_ids_to_tokens(self, ids: int) -> str | None: ...


class TextStream(Protocol):
    """Text of one response."""

    def push(self, token: int) -> str:
        """Return the text that became certain with this token."""

    def finish(self) -> str:
        """Return the rest. An incomplete character becomes U+FFFD."""


class Detokenizer:
    """Factory of a `TextStream` for each response of one model."""

    def __init__(self, tokenizer: Tokenizer, *, markers: Collection[int] = ()) -> None:
        """Create a factory; `markers` are special tokens that are text nevertheless."""
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        special = {*tokenizer.all_special_ids, *(id_ for id_, token in added if token.special)}
        self._skipped = frozenset(special.difference(markers))
        self._bytes_of = byte_reading(tokenizer)
        self._table: dict[int, bytes] = {}

    def stream(self) -> TextStream:
        if self._bytes_of is None:
            return _WindowStream(self._tokenizer, self._skipped)
        return _ByteStream(self.token_bytes)

    def token_bytes(self, token: int) -> bytes:
        """Return what a token adds to the response. Each token of the vocabulary is looked up once."""
        known = self._table.get(token)
        if known is None:
            name = None if token in self._skipped else self._tokenizer.convert_ids_to_tokens(token)
            known = b"" if name is None or self._bytes_of is None else self._bytes_of(name)
            self._table[token] = known
        return known


class _ByteStream:
    """Decoder for vocabularies whose tokens are byte strings independent of their neighbours: nearly all models."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decode = _UTF8_DECODER("replace").decode

    def push(self, token: int) -> str:
        return self._decode(self._token_bytes(token))

    def finish(self) -> str:
        return self._decode(b"", True)


class _WindowStream:
    """Decoder for any other tokenizer: decode the last few tokens again and return what is new.

    The window starts with tokens whose text is known, so that anything the tokenizer does at the start of a text (most
    drop a space) happens there and not between two tokens.
    """

    CONTEXT = 6
    LONGEST = 24

    def __init__(self, tokenizer: Tokenizer, skipped: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._skipped = skipped
        self._window: list[int] = []
        self._given = 0

    def push(self, token: int) -> str:
        if token in self._skipped:
            return ""
        self._window.append(token)
        text = self._decoded()
        if text.endswith(_REPLACEMENT) and len(self._window) < self.LONGEST:
            return ""
        new, self._given = text[self._given :], max(self._given, len(text))
        if len(self._window) >= self.LONGEST:
            self._window = self._window[-self.CONTEXT :]
            self._given = len(self._decoded())
        return new

    def finish(self) -> str:
        return self._decoded()[self._given :]

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._window, clean_up_tokenization_spaces=False)


def byte_reading(tokenizer: Tokenizer) -> Callable[[str], bytes] | None:
    """Return how to read a token's name as bytes, checked with a probe; None if no reading gives the probe's text."""
    tokens = tokenizer.encode(_PROBE, add_special_tokens=False)
    names = [tokenizer.convert_ids_to_tokens(token) or "" for token in tokens]
    expected = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    for reading in (_byte_level, _sentencepiece):
        text = b"".join(map(reading, names)).decode("utf-8", "replace")
        # Some sentencepiece models drop the text's first space. So do we, in every response.
        if _REPLACEMENT not in expected and text.lstrip(" ") == expected.lstrip(" "):
            return reading
    return None


def _byte_level(name: str) -> bytes:
    """Read a name in GPT-2's alphabet. A name with any other character is text as a whole."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, name))
    except KeyError:
        return name.encode("utf-8", "replace")


def _sentencepiece(name: str) -> bytes:
    """Read a name in which `▁` is a space and `<0x0A>` a byte. Invalid UTF-8 gives fewer U+FFFD than `decode`."""
    byte = _BYTE_TOKEN.fullmatch(name)
    if byte is not None:
        return bytes.fromhex(byte[1])
    return name.replace("\u2581", " ").encode("utf-8", "replace")


def _alphabet() -> dict[str, int]:
    """Return GPT-2's alphabet: printable bytes are themselves, and others are moved.

    See https://github.com/openai/gpt-2/blob/master/src/encoder.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(moved)}


_BYTE_OF = _alphabet()
