"""What `GET /v1/models` says that a model takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from localapi.api.openai.models import taken_fields
from localapi.backends.echo_speech import EchoSpeech
from localapi.backends.engine import Engine
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.speech import SpeechOptions
from localapi.manifest import Entry
from localapi.manifest.entries import ServerOptions
from localapi.worker.protocol import Loaded

ALL = ["instruct_text", "instructions", "ref_audio", "ref_text", "source_audio"]


def entry_of(options: SpeechOptions, folder: Path) -> Entry:
    return Entry.of("it", options.located(lambda _: folder), server=ServerOptions())


def loaded(**said: Any) -> Engine:
    return cast("Engine", SimpleNamespace(loaded=Loaded(**said)))


@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        (None, ALL),
        (loaded(), ALL),
        (loaded(takes=["ref_audio", "ref_text"]), ["ref_audio", "ref_text"]),
        (loaded(takes=["instruct_text"]), ["instruct_text", "instructions"]),
        (loaded(takes=[]), []),
    ],
)
def test_a_model_takes_what_its_backend_does_and_of_that_what_it_says_itself(
    tmp_path: Path, engine: Engine | None, fields: list[str]
) -> None:
    assert taken_fields(entry_of(EchoSpeech(backend="echo"), tmp_path), engine) == fields


def test_a_backend_that_takes_nothing_more_says_so(tmp_path: Path) -> None:
    assert taken_fields(entry_of(EspeakNg(backend="espeak-ng"), tmp_path), None) == []
