"""Which backend runs a model, from its config.json and its name; nothing is imported for that."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from localapi.backends.auto import SPEECH, architecture, by_kind

_CHAT_CLASSES: Final = ("ForCausalLM", "LMHeadModel")
"""Endings of the classes that config.json names for models that write text. What ends in ForConditionalGeneration may
as well hear or speak: of those mlx-lm's own architectures count."""

_SNAC_CODES: Final = 7 * 4096
_TEXT_TOKENS: Final = {"llama": 128_266, "qwen3": 151_679}
"""Where the codes of sound begin among the tokens of language models that speak by the codec SNAC, as both speech
packages have it: Orpheus (tts/models/llama) and VyvoTTS (tts/models/qwen3). In all else they are as models that chat.
"""
_PADDING: Final = 1024
"""Tokens that a vocabulary may have beyond those that are used."""


def chat_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend that chats with a model, or None if it speaks or nothing tells."""
    kind, words = architecture(dict(config), name), _words(name)
    if _speaker(config, kind, words) or any(word.endswith("tts") for word in words):
        return None  # or it speaks in a way that none of the packages knows
    classes = config.get("architectures")
    named = isinstance(classes, list) and any(str(each).endswith(_CHAT_CLASSES) for each in classes)
    return "mlx-lm" if named or kind in _architectures_of_mlx_lm() else None


def speech_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend that speaks with a model, or None if nothing tells that one does."""
    speaker = _speaker(config, architecture(dict(config), name), _words(name))
    return by_kind(speaker)[0] if speaker else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9.]+", name.lower().rpartition("/")[2]) if word]


def _speaker(config: Mapping[str, Any], kind: str, words: Sequence[str]) -> str | None:
    return kind if kind in SPEECH else _speaks(config, kind, words)


def _speaks(config: Mapping[str, Any], kind: str, words: Sequence[str]) -> str | None:
    """The architecture by which a model speaks whose config.json is a language model's; None where it does not.

    Some differ in their vocabulary. Others, such as OuteTTS and Spark-TTS, in nothing but their name, which both
    packages look at, too; a name such as "spark" alone may be that of anything.
    """
    tokens, text = config.get("vocab_size"), _TEXT_TOKENS.get(kind)
    if text and isinstance(tokens, int) and 0 <= tokens - text - _SNAC_CODES < _PADDING:
        return kind
    if not any(word.endswith("tts") for word in words):
        return None
    return next((word for word in words if word in SPEECH), None)


def _architectures_of_mlx_lm() -> frozenset[str]:
    """The names of its models' files; none where it is not installed."""
    spec = importlib.util.find_spec("mlx_lm")
    folders = spec.submodule_search_locations if spec else None
    return frozenset(file.stem for folder in folders or () for file in (Path(folder) / "models").glob("*.py"))
