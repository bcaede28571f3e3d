"""Recordings through mlx-vlm: the real package in its own environment, with a tiny Gemma 4 of random weights."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile

from localapi.audio.encoder import encoded
from localapi.audio.formats import WAV
from localapi.environments import Environment
from tests.images.picture_files import data_url, png
from tests.mlx_audio_models import INSTALL_SECONDS
from tests.server import Server
from tests.worker.vlm.conftest import SensingServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(INSTALL_SECONDS)]

CHAT = "/v1/chat/completions"
RATE = 16_000
OWN = """
import json, sys
import numpy as np
from mlx_vlm import load
from mlx_vlm.generate import stream_generate
folder, *files = sys.argv[1:]
model, processor = load(folder)
parts = [{"type": "audio"} for _ in files] + [{"type": "text", "text": "What?"}]
messages = [{"role": "user", "content": parts}]
prompt = processor.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
prompt = prompt.removeprefix("<bos>")  # which this version would put there twice
sounds = [np.frombuffer(open(file, "rb").read(), np.int16).astype(np.float32) / 32768 for file in files]
said = list(stream_generate(model, processor, prompt, audio=sounds, max_tokens=8, temperature=0.0))
tokens = [each.token for each in said if each.token is not None][:8]
texts = [processor.tokenizer.decode([token], skip_special_tokens=True) for token in tokens]
print(json.dumps([said[-1].prompt_tokens, texts]))
"""


def tone(seconds: float, hz: float) -> bytes:
    times = np.arange(int(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * hz * times) * 12_000).astype(np.int16).tobytes()


LOW, HIGH = tone(1.3, 200), tone(0.7, 1200)


@pytest.fixture(scope="module")
def server(sensing_server: SensingServer) -> Iterator[Server]:
    entry = "{backend: mlx-vlm, path: ./model, reasoning_format: none, max_recording_duration: 40s"
    with sensing_server("hearing", f"  ear: {entry}}}\n  anew: {entry}, prefix_cache_mb: 0}}\n") as server:
        yield server


def heard(*files: bytes, images: int = 0, **fields: Any) -> dict[str, Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": data_url(png(64, 48))}}] * images
    for file in files:
        audio = {"data": base64.b64encode(file).decode(), "format": "wav"}
        parts.append({"type": "input_audio", "input_audio": audio})
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}
    return {"model": "ear", "max_tokens": 8, "temperature": 0, "messages": [message], **fields}


def answer(server: Server, body: dict[str, Any]) -> Any:
    reply = server.request("POST", CHAT, body)
    assert reply.status == 200, reply.body
    return reply.json()


def tokens(server: Server, body: dict[str, Any]) -> list[str]:
    content = answer(server, {**body, "logprobs": True})["choices"][0]["logprobs"]["content"]
    return [bytes(each["bytes"]).decode(errors="replace") for each in content]


def test_the_answer_is_that_of_mlx_vlm_itself(server: Server, environment: Environment) -> None:
    for sounds in ((LOW,), (LOW, HIGH)):
        files = []
        for at, pcm in enumerate(sounds):
            files.append(server.folder / f"{at}.pcm")
            files[-1].write_bytes(pcm)
        done = subprocess.run(
            [environment.interpreter, "-c", OWN, server.folder / "model", *files],
            check=True,
            capture_output=True,
            timeout=300,
        )
        prompt_tokens, said = json.loads(done.stdout.splitlines()[-1])
        body = heard(*(encoded(pcm, WAV, RATE) for pcm in sounds))
        assert answer(server, body)["usage"]["prompt_tokens"] == prompt_tokens
        assert tokens(server, body) == said


def test_what_is_heard_decides_what_is_said_and_the_format_does_not(server: Server) -> None:
    low = encoded(LOW, WAV, RATE)
    said = [
        tokens(server, body) for body in (heard(), heard(low), heard(encoded(HIGH, WAV, RATE)), heard(low, images=1))
    ]
    assert len({tuple(each) for each in said}) == len(said)
    flac = io.BytesIO()
    soundfile.write(flac, np.frombuffer(LOW, np.int16), RATE, format="FLAC")
    assert tokens(server, heard(flac.getvalue())) == said[1]
    described = server.get("/v1/models")["data"][0]
    assert (described["input"], described["capabilities"]["hearing"]) == (["text", "audio", "image"], True)


def test_the_next_turn_computes_only_what_is_new_unless_the_recording_is_another_one(server: Server) -> None:
    first, other = heard(encoded(LOW, WAV, RATE)), heard(encoded(tone(1.3, 300), WAV, RATE))
    said = answer(server, first)["choices"][0]["message"]["content"]
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": "And?"}]
    later = {**first, "messages": [*first["messages"], *turns]}
    quick = answer(server, later)
    slow = answer(server, {**later, "model": "anew"})
    assert quick["choices"] == slow["choices"]
    beginning = answer(server, {**other, "messages": [*other["messages"], *turns]})  # never heard before
    cached = [each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in (quick, slow, beginning)]
    assert cached[0] > 30
    assert max(cached[1:]) < 10


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (encoded(bytes(2 * 31 * RATE), WAV, RATE), "30 seconds"),  # what this model takes
        (encoded(bytes(2 * 41 * 8000), WAV, 8000), "30 seconds"),
        (encoded(b"", WAV, RATE), "no audio"),
        (b"fLaC" + bytes(99), "cannot be read"),
    ],
)
def test_a_recording_that_cannot_be_heard_fails_its_request_alone(server: Server, file: bytes, words: str) -> None:
    reply = server.request("POST", CHAT, heard(file))
    assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert words in reply.json()["error"]["message"]
    assert answer(server, heard(encoded(tone(0.001, 500), WAV, RATE)))["usage"]["completion_tokens"]
