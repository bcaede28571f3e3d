"""Recognize the backend for a model by its config.json and its name, without imports."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from localapi.backends.auto import SPEECH, architecture, by_kind

_CHAT_CLASSES: Final = ("ForCausalLM", "LMHeadModel")
"""Endings of classes in config.json for models that generate text.

Models of classes ending in ForConditionalGeneration may also hear or speak; of those, the architectures of mlx-lm
count.
"""

_EMBEDS: Final = ("embedding", "embed")
_RANKS: Final = ("rerank",)
"""Prefixes of words in the names of models that are built like chat models but rank documents."""
_ENCODERS: Final = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "nomic_bert", "modernbert", "new"}
)
"""`model_type` of networks that encode texts and generate none."""

_HEARS: Final = frozenset({
    "canary", "cohere_asr", "distil_whisper", "fun_asr", "funasr", "glmasr", "granite_speech", "lasr_ctc", "moonshine",
    "moonshine_streaming", "nemotron_asr", "parakeet", "parakeet_ctc", "parakeet_tdt", "qwen3_asr", "qwen2_audio",
    "sensevoice", "vibevoice_asr", "voxtral", "voxtral_realtime", "wav2vec2", "whisper",
})  # fmt: skip
"""`model_type` of networks that transcribe speech."""
_HEARS_BY_NAME: Final = (".asr.",)

_SNAC_CODES: Final = 7 * 4096
_TEXT_TOKENS: Final = {"llama": 128_266, "qwen3": 151_679}
"""First token that is a sound code, in language models that speak with the codec SNAC.

Both speech packages have these models: Orpheus (tts/models/llama) and VyvoTTS (tts/models/qwen3). In all other respects
they look like chat models.
"""
_PADDING: Final = 1024
"""Maximum unused tokens in a vocabulary."""


def chat_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend for chat with a model, or None if it is a speech model or unknown."""
    kind, words = architecture(dict(config), name), _words(name)
    if _speaker(config, kind, words) or any(word.endswith("tts") for word in words):
        return None  # or a speech model that neither package supports
    if embedding_backend(config, name) or rerank_backend(config, name) or transcription_backend(config, name):
        return None
    if isinstance(config.get("vision_config"), dict):
        return "mlx-vlm"
    return "mlx-lm" if _classes(config, _CHAT_CLASSES) or kind in _architectures_of_mlx_lm() else None


def embedding_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend for embeddings with a model, or None if it is not an embedding model."""
    if _has_word(name, _EMBEDS) and _classes(config, _CHAT_CLASSES):
        return "mlx-lm"
    if rerank_backend(config, name) is None and config.get("model_type") in _ENCODERS:
        return "onnx"
    return None


def rerank_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend for reranking with a model, or None if it is not a rerank model."""
    if _has_word(name, _RANKS) and _classes(config, _CHAT_CLASSES):
        return "mlx-lm"
    labels = config.get("num_labels") or len(config.get("id2label") or (1, 2))
    if _classes(config, ("ForSequenceClassification",)) and labels == 1:
        return "onnx"
    return None


def transcription_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend for transcription with a model, or None if it is not a transcription model."""
    kind = str(config.get("model_type") or "").lower()
    if kind in _HEARS or _nemo_name(config, _HEARS_BY_NAME):
        return "mlx-audio"
    # CTranslate2's format, for Whisper only
    if {"suppress_ids", "lang_ids", "alignment_heads"} & set(config) and not kind:
        return "faster-whisper"
    return None


def _nemo_name(config: Mapping[str, Any], beginnings: tuple[str, ...]) -> bool:
    """Return whether a config.json of NVIDIA's NeMo, which has no model_type, is that of a transcription model."""
    target = config.get("target")
    return isinstance(target, str) and any(word in target.lower() for word in beginnings)


def _has_word(name: str, beginnings: tuple[str, ...]) -> bool:
    return any(word.startswith(beginnings) for word in _words(name))


def _classes(config: Mapping[str, Any], endings: tuple[str, ...]) -> bool:
    classes = config.get("architectures")
    return isinstance(classes, list) and any(str(each).endswith(endings) for each in classes)


def speech_backend(config: Mapping[str, Any], name: str) -> str | None:
    """Return the backend for speech with a model, or None if it is unknown."""
    speaker = _speaker(config, architecture(dict(config), name), _words(name))
    return by_kind(speaker)[0] if speaker else None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9.]+", name.lower().rpartition("/")[2]) if word]


def _speaker(config: Mapping[str, Any], kind: str, words: Sequence[str]) -> str | None:
    return kind if kind in SPEECH else _speaks(config, kind, words)


def _speaks(config: Mapping[str, Any], kind: str, words: Sequence[str]) -> str | None:
    """Return the speech architecture of a model with the config.json of a language model, or None if it has none.

    Some differ from chat models in their vocabulary. Others, such as OuteTTS and Spark-TTS, differ only in their name,
    which both packages check too. A word such as "spark" alone is not enough.
    """
    tokens, text = config.get("vocab_size"), _TEXT_TOKENS.get(kind)
    if text and isinstance(tokens, int) and 0 <= tokens - text - _SNAC_CODES < _PADDING:
        return kind
    if not any(word.endswith("tts") for word in words):
        return None
    return next((word for word in words if word in SPEECH), None)


def _architectures_of_mlx_lm() -> frozenset[str]:
    """Return the names of mlx-lm's model files; empty if it is not installed."""
    spec = importlib.util.find_spec("mlx_lm")
    folders = spec.submodule_search_locations if spec else None
    return frozenset(file.stem for folder in folders or () for file in (Path(folder) / "models").glob("*.py"))
