"""Write timed text as subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """Text with the times at which it is shown."""

    start_seconds: float
    end_seconds: float
    text: str


def srt(captions: Iterable[Caption]) -> str:
    """Return captions as a SubRip file."""
    blocks = []
    for number, caption in enumerate(captions, 1):
        times = f"{_time(caption.start_seconds, ',')} --> {_time(caption.end_seconds, ',')}"
        blocks.append(f"{number}\n{times}\n{_lines(caption.text)}\n")
    return "\n".join(blocks)


def vtt(captions: Iterable[Caption]) -> str:
    """Return captions as a WebVTT file (https://www.w3.org/TR/webvtt1/)."""
    blocks = ["WEBVTT\n"]
    for caption in captions:
        times = f"{_time(caption.start_seconds, '.')} --> {_time(caption.end_seconds, '.')}"
        text = _lines(caption.text).replace("&", "&amp;").replace("<", "&lt;")
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def _lines(text: str) -> str:
    """Return a text without blank lines, which would end its caption."""
    return "\n".join(line.strip() for line in text.replace("-->", "→").splitlines() if line.strip())


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
