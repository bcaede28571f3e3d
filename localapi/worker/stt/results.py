"""Arguments and results of mlx-audio's transcription models, which differ between architectures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from localapi.audio.languages import language_code
from localapi.worker.protocol import Transcribe, TranscriptSegment, WordTime
from localapi.worker.turns import RequestRefused

NO_LANGUAGES: Final = frozenset({"", "auto", "none", "nospeech", "unknown"})
"""Words that results contain in place of a language."""


def arguments_of(generate: Callable[..., Any], request: Transcribe, language: str | None) -> dict[str, Any]:
    """Return the arguments for a request, limited to those of the model's `generate`. Raise RequestRefused."""
    taken = inspect.signature(generate).parameters
    arguments: dict[str, Any] = {}
    if language is not None and "language" in taken:
        arguments["language"] = language
    if language is not None and "source_lang" in taken:
        arguments |= {"source_lang": language, "target_lang": language}
    if request.translate:
        if "task" in taken:
            arguments["task"] = "translate"
        elif "target_lang" in taken:
            arguments["target_lang"] = "en"
        else:
            raise RequestRefused("model", "This model does not translate. Use POST /v1/audio/transcriptions.")
    if request.temperature and "temperature" in taken:  # 0 is raised only if the text is bad, as by default
        arguments["temperature"] = request.temperature
    for name in ("initial_prompt", "system_prompt", "context"):
        if request.prompt is not None and name in taken:
            arguments[name] = request.prompt
            break
    if request.words and "word_timestamps" in taken:
        arguments["word_timestamps"] = True
    return arguments


def languages_of(model: Any) -> dict[str, str]:
    """Return the model's names of the languages that it knows, by code; empty if it does not report them.

    Whisper would generate gibberish for a language that it has no token for. Qwen3-ASR expects names instead of codes.
    """
    if hasattr(model, "get_tokenizer") and hasattr(model, "is_multilingual"):
        tokenizer = model.get_tokenizer()  # raises ValueError if the folder has none
        names = tokenizer.all_language_codes if model.is_multilingual else ("en",)
    else:
        config = getattr(model, "config", None)
        names = _field(config, "support_languages") or _field(config, "supported_languages") or ()
    return {language_code(each): each for each in names}


def found_language(result: Any) -> str | None:
    """Return the code of the language that a result names; None if it names none."""
    found = _field(result, "language")
    if isinstance(found, list):  # one for each segment
        found = found[0] if found else None
    if not isinstance(found, str) or found.strip().lower() in NO_LANGUAGES:
        return None
    return language_code(found)


def segments_of(result: Any, seconds: float) -> list[TranscriptSegment]:
    """Return a result as segments; a text without times is one segment of the whole piece."""
    parts = _field(result, "segments") or _field(result, "sentences") or []
    segments = [_segment(each, seconds) for each in parts]
    if segments:
        return segments
    text = _field(result, "text") or ""
    return [TranscriptSegment(start_seconds=0.0, end_seconds=seconds, text=str(text))]


def _segment(part: Any, seconds: float) -> TranscriptSegment:
    return TranscriptSegment(
        start_seconds=_number(part, "start", 0.0),
        end_seconds=_number(part, "end", seconds),
        text=str(_field(part, "text") or ""),
        words=_words(part, seconds),
        tokens=[each for each in _field(part, "tokens") or () if isinstance(each, int)],
        temperature=_number(part, "temperature", 0.0),
        avg_logprob=_number(part, "avg_logprob", 0.0),
        compression_ratio=_number(part, "compression_ratio", 0.0),
        no_speech_prob=_number(part, "no_speech_prob", 0.0),
    )


def _words(part: Any, seconds: float) -> list[WordTime]:
    """Return the times of a segment's words, as reported, or from its tokens. A word may have several tokens."""
    words: list[WordTime] = []
    for each in _field(part, "words") or ():
        text = _field(each, "word") or _field(each, "text") or ""
        words.append(WordTime(str(text), _number(each, "start", 0.0), _number(each, "end", seconds)))
    if words:
        return words
    for token in _field(part, "tokens") or ():
        text, end = _field(token, "text"), _number(token, "end", seconds)
        if not isinstance(text, str) or _field(token, "start") is None:
            return []
        if words and not text.startswith(" "):
            before = words[-1]
            words[-1] = WordTime(before.text + text, before.start_seconds, end)
        else:
            words.append(WordTime(text, _number(token, "start", 0.0), end))
    return words


def _field(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def _number(part: Any, name: str, otherwise: float) -> float:
    value = _field(part, name)
    try:
        return otherwise if value is None else float(value)
    except (TypeError, ValueError):
        return otherwise
