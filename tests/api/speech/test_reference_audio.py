"""Recordings that a request brings: what counts as one, and that nobody else waits meanwhile."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, quote_from_bytes

import pytest

from localapi.api.speech.reference_audio import manifest_audio, requested_audio
from localapi.errors import InvalidRequest

pytestmark = pytest.mark.everyday

SOUND = b"RIFF\0\0\0\0WAVE" + bytes(range(256)) * 3000
WRITTEN = base64.b64encode(SOUND).decode()


@pytest.mark.parametrize(
    "value",
    [
        WRITTEN,
        WRITTEN.rstrip("="),
        "\r\n".join(WRITTEN[at : at + 76] for at in range(0, len(WRITTEN), 76)),
        f"data:audio/wav;base64,{WRITTEN}",
        f"DATA:audio/webm;codecs=opus;Base64,{WRITTEN}",
        f"data:;base64,{WRITTEN}",
        WRITTEN.translate(str.maketrans("+/", "-_")),
        f"data:audio/wav;base64,{WRITTEN.translate(str.maketrans('+/', '-_')).rstrip('=')}",
        f" data: audio/wav ; rate=16000 ; base64 , {WRITTEN} ",
        f'data:audio/webm;codecs="opus,pcm";base64,{WRITTEN}',
        f"data:audio/wav;base64;charset=utf-8,{WRITTEN}",
        f"data:audio/wav;base64,{quote(WRITTEN, safe='')}",
        f"data:audio/wav,{quote_from_bytes(SOUND)}",
        " ".join(WRITTEN[at : at + 4] for at in range(0, len(WRITTEN), 4)),
    ],
)
async def test_base64_and_data_urls_are_read(value: str) -> None:
    assert await requested_audio(value, "ref_audio", []) == SOUND


@pytest.mark.parametrize(
    "value",
    ["", "data:", "data:audio/wav,abc", "data:;base64,", "no!", "AA==AAAA", f"AA=={WRITTEN}", "https://x/", "é" * 8],
)
async def test_what_is_no_recording_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        await requested_audio(value, "ref_audio", [])


@pytest.mark.parametrize(
    "value", [WRITTEN * 16, "data:" + ";" * 12_000_000, "a" * 12_000_000], ids=["base64", "semicolons", "letters"]
)
async def test_the_event_loop_runs_on_while_a_long_one_is_read(value: str) -> None:
    longest, ended = 0.0, False
    loop = asyncio.get_running_loop()

    async def ticking() -> None:
        nonlocal longest
        last = loop.time()
        while not ended:
            await asyncio.sleep(0)
            longest, last = max(longest, loop.time() - last), loop.time()

    ticks = asyncio.create_task(ticking())
    await asyncio.sleep(0)
    began = loop.time()
    await asyncio.gather(requested_audio(value, "ref_audio", []), return_exceptions=True)
    took = loop.time() - began
    ended = True
    await ticks
    assert took < 2
    assert longest < max(0.6 * took, 0.03)


async def test_a_file_that_cannot_be_read_is_the_requests_fault_only_where_it_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "me.wav").write_bytes(SOUND)
    assert await requested_audio("me.wav", "ref_audio", [str(tmp_path)]) == SOUND
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InvalidRequest, match="Permission denied"):
        await requested_audio("me.wav", "ref_audio", [str(tmp_path)])
    with pytest.raises(Exception, match="Permission denied") as failed:
        await manifest_audio(str(tmp_path / "me.wav"), "ref_audio")
    assert getattr(failed.value, "status", None) == 500
