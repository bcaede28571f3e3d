"""What a model is for, and which backend runs it, by what its files say; nothing is imported for that."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from localapi.backends.auto import SPEECH, architecture, by_kind
from localapi.backends.options import Kind

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

Recognized = tuple[Kind, str]
"""A section of the manifest, and a backend."""


def recognize(config: Mapping[str, Any], name: str) -> Recognized | None:
    """By a model's config.json and its name; None where these do not tell."""
    kind = architecture(dict(config), name)
    words = [word for word in re.split(r"[^a-z0-9.]+", name.lower().rpartition("/")[2]) if word]
    speaker = kind if kind in SPEECH else _speaks(config, kind, words)
    if speaker:
        return "speech", by_kind(speaker)[0]
    if any(word.endswith("tts") for word in words):
        return None  # it speaks, in a way that none of the packages knows
    classes = config.get("architectures")
    named = isinstance(classes, list) and any(str(each).endswith(_CHAT_CLASSES) for each in classes)
    if named or kind in _architectures_of_mlx_lm():
        return "chat", "mlx-lm"
    return None


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


def recognize_place(place: Path) -> Recognized | None:
    """By what is in a folder, or by a file's name. Raises ValueError for a config.json that cannot be read."""
    if place.suffix == ".onnx":
        return "speech", "piper"
    config = place / "config.json"
    if config.is_file():
        content = json.loads(config.read_text("utf-8"))
        return recognize(content, place.name) if isinstance(content, dict) else None
    return ("speech", "piper") if place.is_dir() and any(place.glob("*.onnx")) else None


def _architectures_of_mlx_lm() -> frozenset[str]:
    """The names of its models' files; none where it is not installed."""
    spec = importlib.util.find_spec("mlx_lm")
    folders = spec.submodule_search_locations if spec else None
    return frozenset(file.stem for folder in folders or () for file in (Path(folder) / "models").glob("*.py"))
