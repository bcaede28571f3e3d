"""Transcription over HTTP, with the echo backend and OpenAI's client."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from localapi.api.openai.transcription_request import check_for_own_engine, read_fields
from localapi.audio.encoder import encoded
from localapi.audio.formats import FORMATS
from localapi.errors import InvalidRequest
from tests.server import Reply, Server, serving

MANIFEST = """\
chat: {bird: {backend: echo}}
transcription:
  ears: {backend: echo, aliases: [whisper-1]}
  small: {backend: echo, max_file_mb: 1, max_duration: 15s, language: de}
  either: {backend: pool, of: [ears]}
"""
RATE = 16_000
SECONDS = 24
PATH = "/v1/audio/transcriptions"


def wav(seconds: float) -> bytes:
    return encoded(bytes(2 * int(RATE * seconds)), FORMATS["wav"], RATE)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("ears"), MANIFEST, env={"TMPDIR": str(temporary)}) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def sound() -> bytes:
    return wav(SECONDS)


Fields = list[tuple[str, str]]


def form(fields: Fields, file: bytes | None = None, *, name: str = "file") -> bytes:
    parts = [
        f'--part\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields
    ]
    if file is not None:
        head = f'--part\r\nContent-Disposition: form-data; name="{name}"; filename="../../x.wav"\r\n\r\n'
        parts.append(head.encode() + file + b"\r\n")
    return b"".join([*parts, b"--part--\r\n"])


HEADERS = {"Content-Type": "multipart/form-data; boundary=part"}


def post(server: Server, body: bytes, path: str = PATH, headers: Mapping[str, str] = HEADERS) -> Reply:
    return server.request("POST", path, body, headers)


def ask(server: Server, file: bytes | None, *fields: tuple[str, str], model: str = "ears") -> Reply:
    return post(server, form([("model", model), *fields], file))


TEXT = "Sound from 0.0 to 10.0 seconds. Sound from 10.0 to 20.0 seconds. Sound from 20.0 to 24.0 seconds."


def test_openais_client_gets_the_text(client: openai.OpenAI, sound: bytes) -> None:
    reply = client.audio.transcriptions.create(model="whisper-1", file=("a.wav", sound))
    assert reply.text == TEXT
    assert reply.usage is not None
    assert reply.usage.to_dict() == {"type": "duration", "seconds": SECONDS}


def test_a_pool_answers_by_its_members(server: Server, sound: bytes) -> None:
    reply = ask(server, sound, model="either")
    assert (reply.json()["text"], reply.headers["x-served-by"]) == (TEXT, "ears")


def test_text_and_subtitles_are_no_json(client: openai.OpenAI, sound: bytes) -> None:
    text, srt, vtt = (
        client.audio.transcriptions.create(model="ears", file=("a", sound), response_format=each)  # type: ignore[call-overload]
        for each in ("text", "srt", "vtt")
    )
    assert text == f"{TEXT}\n"
    assert srt.startswith("1\n00:00:00,000 --> 00:00:10,000\nSound from 0.0 to 10.0 seconds.\n\n2\n")
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:10.000\nSound from 0.0 to 10.0 seconds.\n\n")


def test_verbose_json_has_segments_or_words(client: openai.OpenAI, sound: bytes) -> None:
    def verbose(*granularities: Any) -> Any:
        return client.audio.transcriptions.create(
            model="ears", file=("a", sound), response_format="verbose_json", timestamp_granularities=list(granularities)
        )

    usual, words, both = verbose(), verbose("word"), verbose("word", "segment")
    assert (usual.language, usual.duration, usual.words) == ("english", SECONDS, None)
    assert [(each.id, each.start, each.end) for each in usual.segments] == [(0, 0, 10), (1, 10, 20), (2, 20, 24)]
    assert words.segments is None
    assert [each.word for each in words.words[:2]] == ["Sound", "from"]
    assert (len(both.segments), len(both.words)) == (3, 18)


def test_a_translation_says_what_it_is(server: Server, sound: bytes) -> None:
    fields = [("model", "small"), ("response_format", "verbose_json")]
    reply = post(server, form(fields, wav(1)), "/v1/audio/translations").json()
    assert (reply["task"], reply["language"]) == ("translate", "german")


def test_a_stream_is_the_text_in_parts(client: openai.OpenAI, sound: bytes) -> None:
    events = list(client.audio.transcriptions.create(model="ears", file=("a", sound), stream=True))
    assert [each.type for each in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert "".join(each.delta for each in events[:-1]) == events[-1].text == TEXT  # type: ignore[union-attr]


def test_a_stream_tells_its_progress_in_comments(server: Server, sound: bytes) -> None:
    reply = ask(server, sound, ("stream", "true"), ("response_format", "verbose_json"))
    lines = reply.body.decode().splitlines()
    told = [json.loads(line[2:])["progress"] for line in lines if line.startswith(": {")]
    assert {"state": "sound", "model": "ears", "done": 20, "total": SECONDS} in told
    done = [json.loads(line[6:]) for line in lines if line.startswith("data: ")][-1]
    assert [each["end"] for each in done["segments"]] == [10, 20, 24]


@pytest.mark.parametrize("written", ["de", "de-AT", "German", "GERMAN"])
def test_languages_are_read_as_people_write_them(server: Server, written: str) -> None:
    reply = ask(server, wav(0.1), ("language", written), ("response_format", "verbose_json"))
    assert reply.json()["language"] == "german"


def test_unknown_fields_are_named_and_empty_ones_unset(server: Server) -> None:
    reply = ask(server, wav(0.1), ("mood", "good"), ("language", ""), ("temperature", ""))
    assert (reply.status, reply.headers["x-ignored-params"]) == (200, "mood")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("response_format", "diarized_json")], "response_format"),
        ([("response_format", "xml")], "response_format"),
        ([("include[]", "logprobs")], "include"),
        ([("include[]", "more")], "include"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities"),
        ([("timestamp_granularities[]", "letter"), ("response_format", "verbose_json")], "timestamp_granularities"),
        ([("temperature", "2")], "temperature"),
        ([("temperature", "nan")], "temperature"),
        ([("stream", "maybe")], "stream"),
        ([("stream", "true"), ("response_format", "srt")], "stream"),
        ([("chunking_strategy[type]", "server_vad")], "chunking_strategy"),
        ([("known_speaker_names[]", "Ann")], "known_speaker_names"),
        ([("model", "ears")], "model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server: Server, fields: Fields, param: str) -> None:
    reply = ask(server, wav(0.1), *fields)
    assert reply.status == 400
    assert reply.json()["error"]["param"].startswith(param)


def lying_mp4() -> bytes:
    """Claims four billion samples."""
    stsz = b"stsz" + bytes(8) + (2**32 - 1).to_bytes(4, "big")
    return (16).to_bytes(4, "big") + b"ftypM4A " + bytes(4) + (len(stsz) + 4).to_bytes(4, "big") + stsz


NOT_SOUND = {
    "empty": b"",
    "text": b"What is said in this file?",
    "zeros": bytes(10_000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "an archive": b"PK\x03\x04" + bytes(100),
    "a playlist": b"#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1:1/a.ts\n",
    "a truncated head": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    "a WAV without sound": wav(0.0)[:44],
    "a truncated MP4": (32).to_bytes(4, "big") + b"ftypM4A ",
    "a lying MP4": lying_mp4(),
    "a truncated WebM": b"\x1a\x45\xdf\xa3" + bytes(20),
    "Ogg without a codec": b"OggS" + bytes(60),
    "a FLAC of nothing": b"fLaC" + bytes(40),
}


@pytest.mark.parametrize("file", NOT_SOUND.values(), ids=NOT_SOUND)
def test_a_file_without_sound_is_the_clients_fault(server: Server, file: bytes) -> None:
    for fields in ([], [("stream", "true")]):
        reply = ask(server, file, *fields)
        assert reply.status == 400, reply.body
        assert reply.json()["error"]["param"] == "file"


BROKEN_FORMS = {
    "no file": form([("model", "ears")]),
    "no model": form([], b"RIFF"),
    "a file in another field": form([("model", "ears")], b"RIFF", name="audio"),
    "two files": form([("model", "ears")], b"RIFF")[: -len(b"--part--\r\n")] + form([], b"RIFF"),
    "cut off": form([("model", "ears")], b"RIFF")[:-12],
    "no form": b'{"model": "ears"}',
    "nothing": b"",
    "a part without a name": b"--part\r\nContent-Disposition: form-data\r\n\r\nx\r\n--part--\r\n",
    "a part without a head": b"--part\r\n\r\nx\r\n--part--\r\n",
    "a field that is no text": form([("model", "ears")])[:-12] + b"\xff\xfe\r\n--part--\r\n",
}


@pytest.mark.parametrize("body", BROKEN_FORMS.values(), ids=BROKEN_FORMS)
def test_a_broken_form_is_refused(server: Server, body: bytes) -> None:
    assert post(server, body).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 400),
        ({"Content-Type": "multipart/form-data"}, 400),
        ({**HEADERS, "Content-Encoding": "gzip"}, 415),
    ],
)
def test_a_body_that_is_no_plain_form_is_refused(server: Server, headers: dict[str, str], status: int) -> None:
    assert post(server, form([("model", "ears")], wav(0.1)), headers=headers).status == status


@pytest.mark.parametrize(("head", "status"), [("\r\nContent-Type: audio/wav", 200), ("", 400)])
def test_a_file_without_a_name_is_known_by_its_type(server: Server, sound: bytes, head: str, status: int) -> None:
    part = f'--part\r\nContent-Disposition: form-data; name="file"{head}\r\n\r\n'.encode()
    reply = post(server, part + sound + b"\r\n" + form([("model", "ears")]))
    assert reply.status == status
    assert status == 200 or reply.json()["error"]["param"] == "file"


def test_many_parts_and_long_fields_are_too_large(server: Server) -> None:
    many = [(f"f{at}", "x") for at in range(200)]
    assert post(server, form([("model", "ears"), *many], wav(0.1))).status == 413
    assert ask(server, wav(0.1), ("prompt", "x" * (3 << 20))).status == 413


@pytest.mark.parametrize("model", ["nobody", "bird"])
def test_a_model_that_is_not_there_or_none_for_it_is_named(server: Server, model: str) -> None:
    reply = ask(server, wav(0.1), model=model)
    assert (reply.status in (400, 404), reply.json()["error"]["param"]) == (True, "model")


def test_a_file_that_is_too_large_or_too_long_is_refused(server: Server) -> None:
    large, long = ask(server, bytes(1 << 21), model="small"), ask(server, wav(16), model="small")
    assert large.status == 413
    assert (long.status, long.json()["error"]["param"]) == (400, "file")


def test_a_length_beyond_all_limits_is_refused_before_anything_is_read(server: Server) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Content-Type", HEADERS["Content-Type"])
        connection.putheader("Content-Length", str(2 << 30))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing_behind(
    server: Server, temporary: Path
) -> None:
    body = form([("model", "ears")], bytes(3 << 20))
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {HEADERS['Content-Type']}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: 2 << 20])
    seen = len(server.lines)
    ask(server, wav(0.1), ("mood", "x"))
    server.wait_for("ignored", after=max(0, seen - 1))
    for _ in range(200):
        if not list(temporary.iterdir()):
            break
        server.request("GET", "/health")
    assert list(temporary.iterdir()) == []


def test_an_upload_of_hundreds_of_megabytes_takes_no_memory(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    ask(server, wav(1))
    before, most = process.memory_info().rss, 0
    size = 300 << 20
    start, end = form([("model", "ears")], b"X").split(b"X")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("Content-Type", HEADERS["Content-Type"])
        connection.putheader("Content-Length", str(len(start) + size + len(end)))
        connection.endheaders()
        connection.send(start)
        block = bytes(4 << 20)
        for _ in range(size // len(block)):
            connection.send(block)
            most = max(most, process.memory_info().rss)
        connection.send(end)
        assert connection.getresponse().status == 400  # it is no sound
    assert most - before < 40 << 20


def test_models_and_metrics_tell_of_it(server: Server, sound: bytes) -> None:
    ask(server, sound)
    models = {each["id"]: each for each in server.get("/v1/models")["data"]}
    assert (models["small"]["kind"], models["small"]["input"]) == ("transcription", ["audio"])
    assert (models["small"]["max_file_bytes"], models["small"]["max_seconds"]) == (1 << 20, 15)
    assert b'localapi_transcription_seconds_total{model="ears"}' in server.request("GET", "/metrics").body


@pytest.fixture(scope="module")
def relay(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose models are on the other one."""
    manifest = f"""\
transcription:
  far: {{backend: openai, url: "{server.url}/v1", model: ears}}
  german: {{backend: openai, url: "{server.url}/v1", model: ears, language: de}}
  gone: {{backend: openai, url: "http://127.0.0.1:1/v1", model: ears}}
  either: {{backend: pool, of: [gone, far]}}
"""
    with serving(tmp_path_factory.mktemp("relay"), manifest) as relay:
        yield relay


@pytest.mark.parametrize("fields", [[("response_format", "srt")], [("response_format", "verbose_json")], []])
def test_another_servers_reply_is_passed_on_as_it_is(server: Server, relay: Server, fields: Fields) -> None:
    here, there = ask(relay, wav(12), *fields, model="far"), ask(server, wav(12), *fields)
    assert (here.status, here.body, here.headers["content-type"]) == (200, there.body, there.headers["content-type"])


@pytest.mark.parametrize("model", ["far", "either"])
def test_another_servers_stream_is_passed_on(relay: Server, sound: bytes, model: str) -> None:
    with relay.client() as client:
        events = list(client.audio.transcriptions.create(model=model, file=('ä".wav', sound), stream=True))
    assert events[-1].text == TEXT  # type: ignore[union-attr]


def test_a_pool_passes_over_a_server_that_is_gone(relay: Server, sound: bytes) -> None:
    reply = ask(relay, sound, model="either")
    assert (reply.json()["text"], reply.headers["x-served-by"]) == (TEXT, "far")


def test_another_server_judges_what_it_can_do(relay: Server) -> None:
    refused = ask(relay, wav(1), ("include[]", "logprobs"), model="far")
    assert (refused.status, refused.json()["error"]["param"]) == (400, "include")
    spoken = ask(relay, wav(1), ("response_format", "verbose_json"), model="german")
    assert spoken.json()["language"] == "german"


def test_a_chunking_strategy_of_several_parts_is_left_to_another_server() -> None:
    parts = {"chunking_strategy[type]": ["server_vad"], "chunking_strategy[threshold]": ["0.5"]}
    request, _ = read_fields({"model": ["far"], **parts})
    with pytest.raises(InvalidRequest, match="chunking_strategy"):
        check_for_own_engine(request)
