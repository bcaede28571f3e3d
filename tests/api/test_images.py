"""Images and recordings in messages, in every dialect, with an echo that says what it was sent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localapi.api.images import with_images
from localapi.api.openai.chat import OpenAIChat
from localapi.audio.encoder import encoded
from localapi.audio.formats import WAV
from localapi.backends.image_options import ImageLimits
from localapi.worker.protocol import Chat, ImagePart
from tests.images.picture_files import data_url, jpeg_header, png, png_header
from tests.server import Server, serving

pytestmark = pytest.mark.everyday

MANIFEST = """

chat:
  blind: {backend: echo}
  seeing: {backend: echo, media: [image, audio], image_folders: [./pictures], image_hosts: [pictures.example]}
  lenient: {backend: echo, unsupported: warn}
  strict: {backend: echo, media: [image], max_images: 2, max_image_mb: 1, max_image_megapixels: 1}
  hearing: {backend: echo, media: [audio], max_recordings: 1, max_recording_mb: 1}
  both: {backend: pool, of: [strict]}
"""
PICTURE = png(4, 3)
SOUND = encoded(bytes(3200), WAV, 16_000)
SHOWN = "[image 1: png, 4x3]"
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("images")
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "red bird.png").write_bytes(png(7, 5))
    (pictures / "note.txt").write_text("no picture")
    (folder / "secret.png").write_bytes(PICTURE)
    (pictures / "way out.png").symlink_to(folder / "secret.png")
    with serving(folder, MANIFEST) as server:
        yield server


def seen(*urls: str, model: str = "seeing", **fields: Any) -> dict[str, Any]:
    images: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {
        "model": model,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "See"}, *images]}],
        **fields,
    }


def in_every_dialect() -> dict[str, tuple[str, dict[str, Any], Callable[[Any], str]]]:
    """Return the path and the body of a request with two images, and where its reply has the text, by dialect."""
    pictures = [PICTURE, png(9, 9)]
    urls, coded = [data_url(each) for each in pictures], [base64.b64encode(each).decode() for each in pictures]
    details: list[dict[str, Any]] = [{"url": urls[0], "detail": "low"}, {"url": urls[1]}]
    blocks = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": each}} for each in coded
    ]
    inputs = [{"type": "input_image", "image_url": urls[0], "detail": "low"}]
    inputs += [{"type": "input_image", "image_url": urls[1]}]
    text = {"type": "text", "text": "See"}

    def said(content: Any, **fields: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": content, **fields}]}

    asked = {"role": "user", "content": [{"type": "input_text", "text": "See"}, *inputs]}
    return {
        "chat": (
            CHAT,
            said([text, *({"type": "image_url", "image_url": each} for each in details)]),
            lambda reply: reply["choices"][0]["message"]["content"],
        ),
        "responses": ("/v1/responses", {"input": [asked]}, lambda reply: reply["output"][0]["content"][0]["text"]),
        "messages": (
            "/v1/messages", {**said([text, *blocks]), "max_tokens": 100}, lambda reply: reply["content"][0]["text"],
        ),
        "ollama": (
            "/api/chat", {**said("See", images=coded), "stream": False}, lambda reply: reply["message"]["content"],
        ),
        "ollama generate": (
            "/api/generate", {"prompt": "See", "images": coded, "stream": False}, lambda reply: reply["response"],
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("path", "body", "text_of"), in_every_dialect().values(), ids=in_every_dialect())
def test_every_dialect_brings_images_to_the_model_unless_it_reads_only_text(
    server: Server, path: str, body: dict[str, Any], text_of: Callable[[Any], str]
) -> None:
    answer = text_of(server.request("POST", path, {**body, "model": "seeing"}).json()).replace(", detail low", "")
    images = f"{SHOWN}\n[image 2: png, 9x9]"
    assert answer == (f"{images}\nSee" if path.startswith("/api/") else f"See\n{images}")
    refused = server.request("POST", path, {**body, "model": "blind"})
    assert refused.status == 400
    assert b"blind" in refused.body
    assert b"text only" in refused.body


def test_an_image_in_the_result_of_a_tool_comes_through(server: Server) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE).decode()}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "see", "input": {}}]},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "seeing", "max_tokens": 9, "messages": messages}
    assert server.request("POST", "/v1/messages", body).status == 200
    result["content"] = [{"type": "image", "source": {**source, "data": "AAAA"}}]
    reply = server.request("POST", "/v1/messages", body)
    assert (reply.status, reply.json()["error"]["type"]) == (400, "invalid_request_error")


def heard(*files: bytes, model: str = "seeing") -> dict[str, Any]:
    sounds = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode(), "format": "mp3"}}
        for file in files
    ]
    return {"model": model, "messages": [{"role": "user", "content": sounds}]}


def test_recordings_are_parts_as_well_and_are_what_their_files_are(server: Server) -> None:
    content = server.request("POST", CHAT, heard(SOUND)).json()["choices"][0]["message"]["content"]
    assert content == f"[audio 1: wav, {len(SOUND)} bytes]"
    audio = {"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "wav"}}
    with server.client() as client:
        reply = client.responses.create(model="seeing", input=[{"role": "user", "content": [audio]}])  # type: ignore[list-item]
    assert reply.output_text == content
    refused = server.request("POST", CHAT, heard(SOUND, model="strict"))
    assert (refused.status, refused.json()["error"]["code"]) == (400, "unsupported_content")
    assert "text and image" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("files", "model", "code", "at"),
    [
        ((b"RIFF",), "seeing", "invalid_audio", 0),
        ((SOUND, PICTURE), "seeing", "invalid_audio", 1),
        ((b"",), "seeing", "invalid_audio", 0),
        ((b"#EXTM3U\nhttp://127.0.0.1/a.mp3",), "seeing", "invalid_audio", 0),
        ((SOUND, SOUND), "hearing", "audio_too_large", 1),
        ((SOUND + bytes(1_100_000),), "hearing", "audio_too_large", 0),
    ],
)
def test_what_is_no_recording_or_too_much_is_refused(
    server: Server, files: tuple[bytes, ...], model: str, code: str, at: int
) -> None:
    reply = server.request("POST", CHAT, heard(*files, model=model))
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["param"]) == (400, code, f"messages[0].content[{at}].input_audio.data")


def test_what_a_model_reads_is_said_wherever_models_are_described(server: Server) -> None:
    models = {model["id"]: model for model in server.get("/v1/models")["data"]}
    assert models["blind"]["input"] == ["text"]
    assert models["seeing"]["input"] == ["text", "audio", "image"]
    assert models["strict"]["input"] == ["text", "image"]
    shown = {name: server.request("POST", "/api/show", {"model": name}).json() for name in ("blind", "seeing")}
    assert ["vision" in shown[name]["capabilities"] for name in ("blind", "seeing")] == [False, True]
    listed = server.request("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}).json()["data"]
    told = {model["id"]: model["capabilities"]["image_input"]["supported"] for model in listed}
    assert [told[name] for name in ("blind", "seeing")] == [False, True]


def test_a_lenient_entry_drops_them_and_names_them(server: Server) -> None:
    reply = server.request("POST", CHAT, seen("data:image/png;base64,AA==", model="lenient"))
    assert reply.json()["choices"][0]["message"]["content"] == "See"
    assert reply.headers["x-unsupported-params"] == "messages[0].content[1].type"


SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        (data_url(png_header(100_000, 100_000)), "image_too_large", "100000x100000"),
        (data_url(jpeg_header(65_000, 65_000)), "image_too_large", "65000x65000"),
        (data_url(PICTURE[:20]), "invalid_image", "PNG"),
        (data_url(SVG, "image/svg+xml"), "invalid_image", "SVG"),
        (data_url(b"%PDF-1.7", "image/png"), "invalid_image", "PDF"),
        (data_url(b"", "image/png"), "invalid_image_url", "empty"),
        ("data:image/png;base64,!!!!", "invalid_image_url", "base64"),
        ("data:image/png", "invalid_image_url", "comma"),
        ("http://127.0.0.1/a.png", "invalid_image_url", "image_hosts"),
        ("http://2130706433/a.png", "invalid_image_url", "image_hosts"),
        ("http://[::1]/a.png", "invalid_image_url", "image_hosts"),
        ("http://169.254.169.254/latest/meta-data", "invalid_image_url", "image_hosts"),
        ("https://pictures.example.evil.org/a.png", "invalid_image_url", "image_hosts"),
        ("HTTP://pictures.example:22/a.png", "invalid_image_url", "image_hosts"),
        ("https://pictures.example/a.png", "invalid_image_url", "unknown"),
        ("file:///etc/passwd", "invalid_image_url", "image_folders"),
        ("file:../secret.png", "invalid_image_url", "image_folders"),
        ("file:%2e%2e/secret.png", "invalid_image_url", "image_folders"),
        ("file:way out.png", "invalid_image_url", "image_folders"),
        ("file://evil.org/red bird.png", "invalid_image_url", "image_folders"),
        ("file:note.txt", "invalid_image", "not an image"),
        ("file:", "invalid_image_url", "image_folders"),
        ("ftp://pictures.example/a.png", "invalid_image_url", "data:"),
        ("blob:http://pictures.example/1", "invalid_image_url", "data:"),
        ("/etc/passwd", "invalid_image_url", "data:"),
        ("", "invalid_image_url", "data:"),
    ],
)
def test_what_is_no_image_from_an_allowed_place_is_refused(server: Server, url: str, code: str, words: str) -> None:
    reply = server.request("POST", CHAT, seen(url))
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["param"]) == (400, code, "messages[0].content[1].image_url.url")
    assert words in error["message"]
    assert len(error["message"]) < 400


@pytest.mark.parametrize("forwards", [True, False])
async def test_a_program_on_this_machine_gets_the_file_and_not_its_address(tmp_path: Path, forwards: bool) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    inline = data_url(png(9, 9))
    body = seen("file:a.png", inline)
    request, _ = OpenAIChat().parse(body)
    limits = ImageLimits(hosts=(), folders=(str(tmp_path),), count=2, megabytes=1, megapixels=1)
    [ask] = (await with_images(request, limits, forwards=forwards)).asks
    assert isinstance(ask, Chat)
    assert [part.data for part in ask.messages[0].content if isinstance(part, ImagePart)] == [PICTURE, png(9, 9)]
    assert ask.original is not None
    urls = [part["image_url"]["url"] for part in ask.original["messages"][0]["content"][1:]]
    assert urls == [data_url(PICTURE) if forwards else "file:a.png", inline]
    assert body == seen("file:a.png", inline)  # the client's own stays as it was


def test_nothing_is_fetched_and_no_file_opened_without_a_list(server: Server) -> None:
    for url in ("https://pictures.example/a.png", "file:red bird.png"):
        reply = server.request("POST", CHAT, seen(url, model="strict"))
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_image_url")


@pytest.mark.parametrize("name", ["file:red%20bird.png", "file:red bird.png", "file:///{pictures}/red%20bird.png"])
def test_a_file_in_an_allowed_folder_is_read(server: Server, name: str) -> None:
    url = name.replace("/{pictures}", str((Path(server.folder) / "pictures").resolve()))
    content = server.request("POST", CHAT, seen(url)).json()["choices"][0]["message"]["content"]
    assert content == "See\n[image 1: png, 7x5]"


def test_the_type_that_a_client_states_is_not_believed(server: Server) -> None:
    content = server.request("POST", CHAT, seen(data_url(PICTURE, "text/html"))).json()["choices"][0]["message"][
        "content"
    ]
    assert content == f"See\n{SHOWN}"


@pytest.mark.parametrize(
    ("urls", "param"),
    [
        ([data_url(PICTURE)] * 3, "messages[0].content[3].image_url.url"),
        ([data_url(PICTURE), data_url(png(1001, 1000))], "messages[0].content[2].image_url.url"),
        ([data_url(PICTURE + b"x" * 1_100_000)], "messages[0].content[1].image_url.url"),
    ],
)
@pytest.mark.parametrize("model", ["strict", "both"])
def test_count_pixels_and_bytes_have_limits_also_through_a_pool(
    server: Server, urls: list[str], param: str, model: str
) -> None:
    reply = server.request("POST", CHAT, seen(*urls, model=model))
    assert (reply.status, reply.json()["error"]["code"]) == (400, "image_too_large")
    assert reply.json()["error"]["param"] == param


def test_other_dialects_name_the_place_as_their_clients_do(server: Server) -> None:
    bad = [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]
    reply = server.request("POST", "/v1/responses", {"model": "seeing", "input": [{"role": "user", "content": bad}]})
    assert (reply.status, reply.json()["error"]["param"]) == (400, "input[0].content[0]")
    by_file = [{"type": "input_image", "file_id": "file_1"}]
    reply = server.request(
        "POST", "/v1/responses", {"model": "seeing", "input": [{"role": "user", "content": by_file}]}
    )
    assert (reply.status, reply.json()["error"]["code"]) == (400, "unsupported_content")
    message = {"role": "user", "content": "x", "images": ["AAAA"]}
    reply = server.request("POST", "/api/chat", {"model": "seeing", "messages": [message]})
    assert reply.status == 400


def test_a_stream_gets_the_status_of_a_bad_image(server: Server) -> None:
    assert server.request("POST", CHAT, seen("file:///etc/passwd", stream=True)).status == 400


def test_prompts_with_images_are_counted(server: Server) -> None:
    body = seen(data_url(PICTURE), model="seeing")
    reply = server.request("POST", "/v1/messages/count_tokens", {
        "model": "seeing", "messages": [{"role": "user", "content": [{"type": "image", "source": {
            "type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE).decode()}}]}],
    })  # fmt: skip
    assert reply.json()["input_tokens"] == len(SHOWN)
    assert server.request("POST", CHAT, body).json()["usage"]["prompt_tokens"] == 5
