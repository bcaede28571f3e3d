"""What faster-whisper is asked to hear, with stand-ins for the package and its model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from localapi.worker.protocol import Transcribe
from localapi.worker.stt.pieces import Piece

REQUEST = Transcribe(id=1, path="", max_seconds=100, language="en")


class Whisper:
    """Hears windows as faster-whisper does: each begins where the last segment of the one before ends."""

    supported_languages = ("en",)

    def __init__(self, windows: Sequence[Sequence[float]]) -> None:
        """`windows`: where segments end in each."""
        self.model = SimpleNamespace(encode=lambda: None)
        self._windows = windows
        self.heard = 0

    def transcribe(self, sound: Any, **_: Any) -> tuple[Iterator[Any], Any]:
        return self._segments(), SimpleNamespace(language="en", language_probability=1.0)

    def _segments(self) -> Iterator[Any]:
        for ends in self._windows:
            self.model.encode()
            self.heard += 1
            for end in ends:
                yield SimpleNamespace(
                    start=end - 1, end=end, text=" x", words=None, tokens=[], temperature=0, avg_logprob=0,
                    compression_ratio=0, no_speech_prob=0,
                )  # fmt: skip


@pytest.mark.parametrize(
    ("windows", "silence", "deferrable", "expected"),
    [
        pytest.param([[4, 19.8]], 0, 10, (1, 2, None), id="all of it"),
        pytest.param([[4, 19.2], [20]], 0.5, 0, (1, 2, None), id="silence is left"),
        pytest.param([[4, 16], [20]], 0.5, 10, (1, 2, 16), id="a sentence is left for the next piece"),
        pytest.param([[4, 16], [20]], 0.5, 0, (2, 3, None), id="a sentence is left in the last piece"),
        pytest.param([[4], [18], [20]], 0, 10, (2, 2, 18), id="much is left"),
        pytest.param([[], [18, 20]], 0, 10, (2, 2, None), id="nothing was heard"),
    ],
)
def test_what_is_left_of_a_piece_is_heard_if_that_is_worth_it(
    monkeypatch: pytest.MonkeyPatch,
    windows: list[list[float]],
    silence: float,
    deferrable: float,
    expected: tuple[int, int, float | None],
) -> None:
    package: Any = ModuleType("faster_whisper")
    package.WhisperModel = Whisper
    detector: Any = ModuleType("faster_whisper.vad")
    detector.get_vad_model = lambda: None
    for module in (package, detector):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "localapi.worker.stt.faster_whisper", raising=False)
    from localapi.worker.stt.faster_whisper import FasterWhisper  # noqa: PLC0415  # with the stand-ins

    whisper = Whisper(windows)
    engine = FasterWhisper(whisper, {}, lambda _: False)
    piece = Piece(0, bytes(2 * 16_000 * 20), (), silence, deferrable)
    got = engine._recognized(piece, REQUEST, "en")
    assert (whisper.heard, len(got.segments), got.heard_seconds) == expected
