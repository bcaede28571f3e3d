"""The kind of a model, by its config.json and its name."""

from __future__ import annotations

import pytest

from localapi.kinds import CHAT as CHAT_KIND
from localapi.kinds import SPEECH, TRANSCRIPTION, Kind, recognize

pytestmark = pytest.mark.everyday

Recognized = tuple[Kind, str]

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
PLUS: Recognized = (SPEECH, "mlx-audio-plus")
UPSTREAM: Recognized = (SPEECH, "mlx-audio")
HEARS: Recognized = (TRANSCRIPTION, "mlx-audio")
CHAT: Recognized = (CHAT_KIND, "mlx-lm")
SEES: Recognized = (CHAT_KIND, "mlx-vlm")


@pytest.mark.parametrize(
    ("name", "config", "recognized"),
    [
        ("me/Llama-3.2-3B-Instruct-4bit", {**LLAMA, "vocab_size": 128_256}, CHAT),
        ("me/Qwen3-0.6B-4bit", {**QWEN3, "vocab_size": 151_936}, CHAT),
        ("me/Breeze-7B-Instruct", {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}, CHAT),
        ("me/Spark-Coder", {**LLAMA, "vocab_size": 32_000}, CHAT),
        ("me/gemma", {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}, CHAT),
        ("me/qwen", {"model_type": "qwen2_vl", "vision_config": {"depth": 2}}, SEES),
        ("me/gemma", {"model_type": "gemma3", "vision_config": {"depth": 2}}, SEES),
        ("me/orpheus-3b-0.1-ft-4bit", {**LLAMA, "vocab_size": 156_940}, PLUS),
        ("me/my-own-voice", {**LLAMA, "vocab_size": 156_940}, PLUS),
        ("me/vyvo", {**QWEN3, "vocab_size": 180_352}, PLUS),
        ("me/OuteTTS-1.0-0.6B-fp16", {**QWEN3, "vocab_size": 157_696}, PLUS),
        ("me/Spark-TTS-0.5B-bf16", {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, UPSTREAM),
        ("me/csm-1b", {"model_type": "csm", "architectures": ["CsmForConditionalGeneration"]}, PLUS),
        ("me/kani-tts-370m", {"model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"]}, None),
        ("me/whisper", {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}, HEARS),
        ("me/ct2", {"alignment_heads": [], "lang_ids": [], "suppress_ids": []}, (TRANSCRIPTION, "faster-whisper")),
    ],
)
def test_a_model_that_speaks_is_not_taken_for_one_that_chats(
    name: str, config: dict[str, object], recognized: Recognized | None
) -> None:
    assert recognize(config, name) == recognized
