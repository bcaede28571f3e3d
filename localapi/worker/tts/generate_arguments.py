"""Turn a request into arguments for a model's `generate`, and find what the model does not use.

Every architecture of mlx-audio has another signature, and all accept and ignore unknown arguments. Some name arguments
that they never read, so their source is inspected.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from localapi.audio.decoder import NotAudio, decode
from localapi.worker.protocol import Speak
from localapi.worker.turns import RequestRefused

MEANS: Mapping[str, tuple[str, ...]] = {
    "ref_audio": ("ref_audio",),
    "ref_text": ("ref_text",),
    "instruct_text": ("instruct_text", "instruct"),
    "source_audio": ("source_audio",),
}
"""Names of each request field in mlx-audio-plus or mlx-audio."""

COSYVOICE = frozenset({"cosyvoice2", "cosyvoice3"})
"""Architectures that require ref_audio, although their signature does not, and ignore it after 30 seconds."""
COSYVOICE_SECONDS, MOST_SECONDS = 30, 120
MOST_BYTES = 32 * 1024 * 1024

QUIET: Mapping[str, object] = {"verbose": False, "stt_model": None}
"""Print nothing to stdout, and download no model to transcribe ref_audio."""


@dataclass
class GenerateCall:
    """Arguments for a call of `generate`, except the text."""

    arguments: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    """Fields of the request that have no effect."""
    whole: bool = False
    """True if a recording is converted, so that the text's segments do not matter."""


class Arguments:
    """Arguments that one model's `generate` uses."""

    def __init__(self, generate: Callable[..., Any], architecture: str, sample_rate_hz: int) -> None:
        self._architecture = architecture
        self._sample_rate_hz = sample_rate_hz
        self._parameters = inspect.signature(generate).parameters
        self._read = parameters_read(generate)
        reference = self._parameters.get("ref_audio")
        self.needs_reference = architecture in COSYVOICE or (
            reference is not None and reference.default is inspect.Parameter.empty
        )

    def takes(self, name: str) -> bool:
        """Return True if the argument has an effect."""
        return name in self._read

    @property
    def taken(self) -> list[str]:
        """Fields of MEANS that have an effect."""
        return sorted(field for field, names in MEANS.items() if any(map(self.takes, names)))

    def of(self, request: Speak) -> GenerateCall:
        """Return the arguments with which to call `generate`.

        Raise RequestRefused for what the model cannot use, unless the request asks to be warned, and for what it lacks.
        """
        asked = GenerateCall({name: value for name, value in QUIET.items() if name in self._parameters})
        options = dict(request.options)
        warn = options.pop("unsupported", "error") == "warn"
        unusable = []
        for param, value in options.items():
            name = next((name for name in MEANS.get(param, ()) if self.takes(name)), None)
            if name is None:
                unusable.append(param)
            else:
                asked.arguments[name] = self._sound(param, value) if isinstance(value, bytes) else value
        if request.voice is not None:
            if self.takes("voice"):
                asked.arguments["voice"] = request.voice
                if self._architecture == "kokoro":  # the names of its voices begin with that of their language
                    asked.arguments["lang_code"] = request.voice[0]
            else:
                unusable.append("voice")
        if unusable and not warn:
            raise RequestRefused(
                unusable[0], f"This model ({self._architecture}) does not support '{unusable[0]}'. Remove it."
            )
        asked.notes += [f"{param} has no effect on this model ({self._architecture})" for param in unusable]
        if self.needs_reference and "ref_audio" not in asked.arguments:
            raise RequestRefused(
                "ref_audio",
                f"This model ({self._architecture}) copies the voice of a recording. Send one as 'ref_audio', or "
                "name one in the manifest: `voices: {alloy: {ref_audio: FILE, ref_text: its words}}`.",
            )
        self._settle(asked)
        return asked

    def _settle(self, asked: GenerateCall) -> None:
        """Remove and note what would be ignored: by a conversion, and by CosyVoice, which follows one instruction."""
        without: list[str] = []
        if "source_audio" in asked.arguments:
            asked.whole = True
            asked.notes.append("source_audio is converted; the text is not spoken")
            without = ["ref_text", "instruct_text"]
        elif self._architecture in COSYVOICE and "instruct_text" in asked.arguments:
            without = ["ref_text"]  # CosyVoice would follow it instead of instruct_text
        for name in without:
            if asked.arguments.pop(name, None) is not None:
                asked.notes.append(f"{name} has no effect beside {'source_audio' if asked.whole else 'instruct_text'}")

    def _sound(self, param: str, file: bytes) -> mx.array:
        """Return a recording at the model's sample rate."""
        seconds = COSYVOICE_SECONDS if self._architecture in COSYVOICE else MOST_SECONDS
        try:
            pcm = decode(file, sample_rate_hz=self._sample_rate_hz, max_seconds=seconds, max_bytes=MOST_BYTES)
        except NotAudio as error:
            raise RequestRefused(param, f"'{param}' cannot be used: {error}") from error
        return mx.array(np.frombuffer(pcm, "<i2").astype(np.float32) / 2**15)


def parameters_read(function: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters that the function's own source reads; all if there is no source."""
    function = inspect.unwrap(function)
    names = frozenset(inspect.signature(function).parameters)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return names
    unused: set[ast.AST] = set()
    read = set()
    for node in ast.walk(tree):  # from the outside in
        if isinstance(node, ast.Assign) and all(isinstance(to, ast.Name) and to.id == "_" for to in node.targets):
            unused.update(ast.walk(node))  # `_ = voice` marks an argument as unused
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node not in unused:
            read.add(node.id)
    return names & read
