"""Arguments and results of mlx-audio's architectures, as they differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from localapi.worker.protocol import Transcribe, WordTime
from localapi.worker.stt.results import arguments_of, found_language, languages_of, segments_of
from localapi.worker.turns import RequestRefused


def whisper(
    audio: Any, *, language: Any = None, task: str = "", temperature: Any = 0, initial_prompt: Any = None,
    word_timestamps: bool = False,
) -> None: ...  # fmt: skip


def canary(audio: Any, *, source_lang: str = "en", target_lang: str = "en", **kwargs: Any) -> None: ...


def parakeet(audio: Any, **kwargs: Any) -> None: ...


def asked(**options: Any) -> Transcribe:
    return Transcribe(id=1, path="", max_seconds=1, **options)


def test_each_architecture_gets_the_arguments_that_it_has() -> None:
    request = asked(prompt="Zoë", temperature=0.5, words=True, translate=True)
    assert arguments_of(whisper, request, "de") == {
        "language": "de", "task": "translate", "temperature": 0.5, "initial_prompt": "Zoë", "word_timestamps": True,
    }  # fmt: skip
    assert arguments_of(canary, request, "de") == {"source_lang": "de", "target_lang": "en"}
    assert arguments_of(parakeet, asked(prompt="x"), "de") == {}


def test_a_model_that_does_not_translate_says_so() -> None:
    with pytest.raises(RequestRefused) as refused:
        arguments_of(parakeet, asked(translate=True), None)
    assert refused.value.param == "model"


def test_results_of_every_shape_are_segments() -> None:
    words = [{"word": " a", "start": 0.1, "end": 0.2}]
    dicts = SimpleNamespace(text="a", segments=[{"start": 0, "end": 1, "text": " a", "tokens": [1], "words": words}])
    aligned = SimpleNamespace(text="a", sentences=[SimpleNamespace(start=0.5, end=0.75, text="a", tokens=["x"])])
    bare = SimpleNamespace(text="a", segments=None)
    odd = SimpleNamespace(text="a", segments=[{"text": "a", "start": None, "end": "later"}])
    found = [segments_of(each, 2.0)[0] for each in (dicts, aligned, bare, odd)]
    assert [(each.start_seconds, each.end_seconds) for each in found] == [(0, 1), (0.5, 0.75), (0, 2), (0, 2)]
    assert (found[0].words, found[0].tokens, found[1].tokens) == ([WordTime(" a", 0.1, 0.2)], [1], [])


def test_words_are_put_together_from_tokens_with_times() -> None:
    said = [(" Go", 0.0, 0.25), ("od", 0.25, 0.5), (" day", 0.75, 1.0)]
    tokens = [SimpleNamespace(text=text, start=start, end=end) for text, start, end in said]
    aligned = SimpleNamespace(sentences=[SimpleNamespace(start=0.0, end=1.0, text="Good day", tokens=tokens)])
    [segment] = segments_of(aligned, 2.0)
    assert segment.words == [WordTime(" Good", 0.0, 0.5), WordTime(" day", 0.75, 1.0)]


class Whisper:
    """Languages as a model of Whisper reports them."""

    def __init__(self, *, is_multilingual: bool) -> None:
        self.is_multilingual = is_multilingual

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(all_language_codes=("en", "de"))


@pytest.mark.parametrize(
    ("model", "languages"),
    [
        (Whisper(is_multilingual=True), {"en": "en", "de": "de"}),
        (Whisper(is_multilingual=False), {"en": "en"}),
        (
            SimpleNamespace(config=SimpleNamespace(support_languages=["English", "Chinese"])),
            {"en": "English", "zh": "Chinese"},
        ),
        (SimpleNamespace(config={"supported_languages": ["fr"]}), {"fr": "fr"}),
        (SimpleNamespace(config=None), {}),
    ],
)
def test_a_model_tells_its_languages_in_its_own_way(model: Any, languages: dict[str, str]) -> None:
    assert languages_of(model) == languages


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ("en", "en"),
        ("English", "en"),
        (["Chinese", "English"], "zh"),
        ([], None),
        ("None", None),
        ("auto", None),
        (3, None),
    ],
)
def test_the_language_of_a_result_is_a_code(told: Any, code: str | None) -> None:
    assert found_language(SimpleNamespace(language=told)) == code
