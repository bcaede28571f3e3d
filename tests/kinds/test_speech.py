"""Parameters of speech models in `GET /v1/models`."""

from __future__ import annotations

import pytest

from localapi.backends.echo import EchoSpeech
from localapi.backends.espeak_ng import EspeakNg
from localapi.backends.speech import SpeechOptions
from localapi.kinds.speech import SpeechModel
from localapi.worker.protocol import Loaded

pytestmark = pytest.mark.everyday

ALL = ["instruct_text", "instructions", "ref_audio", "ref_text", "source_audio"]


@pytest.mark.parametrize(
    ("loaded", "fields"),
    [
        (None, ALL),
        (Loaded(), ALL),
        (Loaded(takes=["ref_audio", "ref_text"]), ["ref_audio", "ref_text"]),
        (Loaded(takes=["instruct_text"]), ["instruct_text", "instructions"]),
        (Loaded(takes=[]), []),
    ],
)
def test_a_model_takes_what_its_backend_does_and_of_that_what_it_says_itself(
    loaded: Loaded | None, fields: list[str]
) -> None:
    assert described(EchoSpeech(backend="echo"), loaded).takes == fields


def test_a_backend_that_takes_nothing_more_says_so() -> None:
    assert described(EspeakNg(backend="espeak-ng"), None).takes == []


def described(options: SpeechOptions, loaded: Loaded | None) -> SpeechModel:
    model = SpeechModel(
        id="v", created=0, owned_by="localapi", kind="speech", backend="", state="", aliases=[], description=None
    )
    model.describe(options, loaded)
    return model
