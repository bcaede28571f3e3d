"""Images through mlx-vlm: the real package in its own environment, with a tiny model of random weights."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localapi.environments import Environment
from tests.images.picture_files import data_url, png, png_header
from tests.mlx_audio_models import INSTALL_SECONDS, ROOT
from tests.server import Server
from tests.worker.vlm.conftest import SensingServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(INSTALL_SECONDS)]

CHAT = "/v1/chat/completions"
RED, GREEN = png(64, 48), png(300, 200, (0, 200, 0))
TOOL = {"name": "see", "parameters": {"type": "object", "properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"]}}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}


@pytest.fixture(scope="module")
def server(sensing_server: SensingServer) -> Iterator[Server]:
    entry = "{backend: mlx-vlm, path: ./model, reasoning_format: none"
    with sensing_server("vision", f"  eye: {entry}}}\n  anew: {entry}, prefix_cache_mb: 0}}\n") as server:
        yield server


def seen(*images: bytes, **fields: Any) -> dict[str, Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}
    return {"model": "eye", "max_tokens": 12, "temperature": 0, "messages": [message], **fields}


def answer(server: Server, body: dict[str, Any]) -> Any:
    reply = server.request("POST", CHAT, body)
    assert reply.status == 200, reply.body
    return reply.json()


def text(server: Server, body: dict[str, Any]) -> str:
    return json.dumps(answer(server, body)["choices"][0]["message"])


def test_the_picture_decides_what_is_said_and_how_long_the_prompt_is(server: Server) -> None:
    said = [text(server, seen(*images)) for images in ((), (RED,), (GREEN,), (RED, GREEN), (GREEN, RED))]
    assert len(set(said)) == len(said)
    assert text(server, seen(RED)) == said[1]
    tokens = [answer(server, seen(*images))["usage"]["prompt_tokens"] for images in ((), (RED,), (GREEN,))]
    assert tokens[0] < tokens[1] < tokens[2]
    described = server.get("/v1/models")["data"][0]
    assert (described["input"], described["batched"]) == (["text", "image"], True)
    assert described["capabilities"]["vision"] is True


def test_a_stream_says_what_a_whole_answer_says_and_seeds_and_several_answers_work(server: Server) -> None:
    with server.client() as client:
        chunks = list(client.chat.completions.create(**seen(GREEN), stream=True))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == answer(server, seen(GREEN))["choices"][0]["message"]["content"]
    two = answer(server, seen(RED, temperature=1, seed=5, n=2))["choices"]
    assert two[0] != two[1]
    assert two == answer(server, seen(RED, temperature=1, seed=5, n=2))["choices"]


def test_the_answer_keeps_a_schema_and_calls_a_tool(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    [choice] = answer(server, seen(RED, response_format=form, max_tokens=60, temperature=1))["choices"]
    assert json.loads(choice["message"]["content"])["a"] in (1, 2)
    tools = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}
    [choice] = answer(server, seen(RED, **tools, max_tokens=400, temperature=1))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["x"] in ("a", "b")


def test_an_answer_is_for_its_own_picture_while_others_wait(server: Server) -> None:
    alone = [text(server, seen(image)) for image in (RED, GREEN)]
    with server.client() as client:
        stream = client.chat.completions.create(**seen(RED, max_tokens=100), stream=True)
        next(iter(stream))
        assert text(server, seen(GREEN)) == alone[1]
        stream.close()
    assert text(server, seen(RED)) == alone[0]


def test_the_next_turns_of_several_conversations_compute_only_what_is_new_and_say_the_same(server: Server) -> None:
    conversations = [seen(*images) for images in ((GREEN,), (RED, GREEN), (RED,), ())]
    laters, lengths = [], []
    for first in conversations:
        reply = answer(server, first)
        lengths.append(reply["usage"]["prompt_tokens"])
        said = reply["choices"][0]["message"]["content"]
        turns = [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
        laters.append({**first, "messages": [*first["messages"], *turns]})
    for later, length in zip(laters, lengths, strict=True):
        quick, slow = answer(server, later), answer(server, {**later, "model": "anew"})
        assert quick["choices"] == slow["choices"]
        cached = [each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in (quick, slow)]
        assert cached[0] >= length - 1
        assert cached[1] == 0
    other = {**laters[0], "messages": [seen(png(300, 200, (1, 2, 3)))["messages"][0], *laters[0]["messages"][1:]]}
    assert answer(server, other)["usage"]["prompt_tokens_details"]["cached_tokens"] < 8


@pytest.mark.parametrize(
    "image", [RED[:70], png_header(500, 500), png(300, 1)], ids=["cut short", "without a picture", "too narrow"]
)
def test_a_file_that_cannot_be_decoded_fails_its_request_alone(server: Server, image: bytes) -> None:
    reply = server.request("POST", CHAT, seen(image))
    assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert answer(server, seen(RED))["usage"]["completion_tokens"]


def test_other_dialects_see_the_same(server: Server) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(GREEN).decode()}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    asked = {"model": "eye", "max_tokens": 12, "temperature": 0, "messages": [{"role": "user", "content": blocks}]}
    by_anthropic = server.request("POST", "/v1/messages", asked).json()
    whole = answer(server, seen(GREEN))
    content = "".join(block.get("text", "") for block in by_anthropic["content"])
    assert content == whole["choices"][0]["message"]["content"]
    turn = {"role": "user", "content": "What?", "images": [source["data"]]}
    chat = {"model": "eye", "stream": False, "messages": [turn], "options": {"temperature": 0, "num_predict": 12}}
    assert server.request("POST", "/api/chat", chat).json()["message"]["content"] == content
    parts = [{"type": "input_image", "image_url": data_url(GREEN)}, {"type": "input_text", "text": "What?"}]
    turns = {"input": [{"role": "user", "content": parts}], "max_output_tokens": 12, "temperature": 0, "model": "eye"}
    [message] = server.request("POST", "/v1/responses", turns).json()["output"]
    assert message["content"][0]["text"] == content
    counted = server.request("POST", "/v1/messages/count_tokens", asked).json()["input_tokens"]
    usage = by_anthropic["usage"]
    assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"] == whole["usage"]["prompt_tokens"]


DECODED = """
import io, sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from localapi.worker.vlm.pictures import MOST_SIDE, picture
def file(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
def check(data, size, *colors):
    seen = picture(data)
    assert (seen.mode, seen.size) == ("RGB", size), (seen.mode, seen.size)
    for at, color in colors:
        assert all(abs(a - b) < 12 for a, b in zip(seen.getpixel(at), color)), (at, seen.getpixel(at), color)
red = Image.new("RGB", (20, 10), (255, 0, 0))
for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
    check(file(red, kind), (20, 10), ((3, 3), (255, 0, 0)))
clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
check(file(clear, "PNG"), (20, 10), ((3, 3), (255, 255, 255)))
check(file(red.convert("P"), "PNG"), (20, 10), ((3, 3), (255, 0, 0)))
check(file(Image.new("I;16", (20, 10), 32768), "PNG"), (20, 10), ((3, 3), (128, 128, 128)))
check(file(Image.new("1", (20, 10), 1), "PNG"), (20, 10), ((3, 3), (255, 255, 255)))
check(file(Image.new("CMYK", (20, 10), (0, 255, 255, 0)), "JPEG"), (20, 10), ((3, 3), (255, 0, 0)))
turned = Image.Exif(); turned[0x112] = 6
check(file(red, "JPEG", exif=turned), (10, 20))
wide = Image.new("RGB", (2 * MOST_SIDE, 100), (0, 255, 0))
check(file(wide, "PNG", exif=turned), (50, MOST_SIDE), ((9, 9), (0, 255, 0)))
assert picture(file(wide, "PNG"), "low").size == (512, 6)
assert picture(file(wide, "PNG"), count=32).size == (1414, 17)  # so that many of them stay within 64 million pixels
blue = Image.new("RGB", (20, 10), (0, 0, 255))
check(file(red, "GIF", save_all=True, append_images=[blue]), (20, 10), ((3, 3), (255, 0, 0)))
check(file(red, "WEBP", save_all=True, append_images=[blue]), (20, 10), ((3, 3), (255, 0, 0)))
"""


def test_pictures_of_all_kinds_become_rgb_and_upright(environment: Environment, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment.interpreter, "-c", DECODED, ROOT],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


PADLESS = """
import sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from localapi.worker.vlm.senses import Media, Senses
class Processor:  # as mlx-vlm's for LLaVA, which gives what it is given to transformers' one for images
    def __call__(self, text=None, images=None, **options):
        if "padding" in options:
            raise TypeError("ImagesKwargs.__init__() got an unexpected keyword argument 'padding'")
        return {"input_ids": [[len(text[0] if isinstance(text, list) else text), len(images)]]}
senses = Senses.__new__(Senses)
senses._processor, senses._config, senses._adds = Processor(), {}, ""
assert senses._inputs("See", Media([Image.new("RGB", (9, 9))], (), ("x",)))["input_ids"] == [[3, 1]]
"""


def test_a_processor_that_takes_no_padding_is_called_without(environment: Environment, tmp_path: Path) -> None:
    command = [environment.interpreter, "-c", PADLESS, ROOT]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
