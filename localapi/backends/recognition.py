"""What a model is for, and which backend runs it, by what its files say; nothing is imported for that."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localapi.backends.auto import SPEECH, architecture, by_kind
from localapi.backends.options import Kind

_CHAT_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of the classes that config.json names for models that write text."""

Recognized = tuple[Kind, str]
"""A section of the manifest, and a backend."""


def recognize(config: Mapping[str, Any], name: str) -> Recognized | None:
    """By a model's config.json and its name; None where these do not tell."""
    kind = architecture(dict(config), name)
    if kind in SPEECH:
        return "speech", by_kind(kind)[0]
    classes = config.get("architectures")
    named = isinstance(classes, list) and any(str(each).endswith(_CHAT_CLASSES) for each in classes)
    if named or kind in _architectures_of_mlx_lm():
        return "chat", "mlx-lm"
    return None


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
