"""`localapi chat` without a terminal: a question in, the answer alone out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.audio.encoder import encoded
from localapi.audio.formats import WAV
from tests import forked
from tests.images.picture_files import png
from tests.server import Server, serving

ROOT = Path(__file__).parents[2]
MANIFEST = "chat: {demo: {backend: mlx-lm, path: demo, defaults: {temperature: 0}}, echo: {backend: echo}, "
MANIFEST += "eye: {backend: echo, media: [image, audio]}}"
MANIFEST += "\nspeech: {tone: {backend: echo}}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("alone"), MANIFEST) as server:
        yield server


def environment(server: Server) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(server.port)}


def chat(server: Server, *arguments: str, told: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return forked.run("chat", *arguments, env=environment(server), typed=told)


def test_a_question_on_standard_input_gets_the_answer_and_nothing_else(server: Server) -> None:
    done = chat(server, "demo", told=b"What is the capital of France?\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"The capital of France is Paris.\n", b"")
    assert chat(server, told=b"What is the capital of France?").stdout == done.stdout  # the first chat model


def test_a_question_as_an_argument_leaves_standard_input_alone(server: Server) -> None:
    assert chat(server, "echo", "hello", told=b"unread").stdout == b"hello\n"
    assert chat(server, "echo", "-", told=b"read").stdout == b"read\n"


def test_images_and_recordings_go_with_the_first_question(server: Server, tmp_path: Path) -> None:
    for name, content in (("a.png", png(4, 3)), ("b.png", png(9, 9))):
        (tmp_path / name).write_bytes(content)
    images = ["--image", str(tmp_path / "a.png"), "--image", str(tmp_path / "b.png")]
    assert chat(server, "eye", "See", *images).stdout == b"[image 1: png, 4x3]\n[image 2: png, 9x9]\nSee\n"
    (tmp_path / "c.wav").write_bytes(encoded(bytes(320), WAV, 16_000))
    sound = ["--audio", str(tmp_path / "c.wav")]
    assert chat(server, "eye", "Hear", *sound).stdout == b"[audio 1: wav, 364 bytes]\nHear\n"
    assert chat(server, "echo", "See", *images).returncode == 1
    assert chat(server, "eye", "See", "--image", str(tmp_path / "none.png")).returncode == 2


def test_a_pipe_gets_every_byte(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")  # as in any locale but C
    told = "\x1b[31mred\x1b[0m\r\n\ttab 你好".encode()
    assert chat(server, "echo", told=told).stdout == told + b"\n"
    assert chat(server, "echo", told=b"not \xff UTF-8").stdout == "not \ufffd UTF-8\n".encode()


def test_options_reach_the_model(server: Server) -> None:
    done = chat(server, "demo", "Count to five.", "--max-tokens", "3", "--temperature", "0", "--system", "Count.")
    assert done.returncode == 0
    assert len(done.stdout) < len("1 2 3 4 5\n")
    refused = chat(server, "demo", "hi", "--reasoning-effort", "loud")
    assert (refused.returncode, b"loud" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (
            ("nobody", "hi"),
            1,
            "The model 'nobody' does not exist. The manifest has these models: demo, echo, eye, tone.",
        ),
        (("tone", "hi"), 1, "tone is a speech model; chat models are: demo, echo"),
        (("echo",), 2, "no question"),
        (("echo", "hi", "--port", "1"), 1, "http://127.0.0.1:1"),
    ],
)
def test_what_goes_wrong_is_one_line(server: Server, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = chat(server, *arguments)
    assert (done.returncode, done.stdout) == (status, b"")
    assert words in done.stderr.decode().splitlines()[-1]


def test_an_answer_that_fails_midway_is_an_error_after_what_came(
    server: Server, endless_model: Path, tmp_path: Path
) -> None:
    manifest = f"chat: {{endless: {{backend: mlx-lm, path: '{endless_model}', defaults: {{temperature: 0}}}}}}"
    with serving(tmp_path, manifest) as other:
        process = subprocess.Popen(
            [sys.executable, "-m", "localapi", "chat", "endless", "Tell me a story."],
            env=environment(other), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(4) == b"Once"
            [worker] = other.workers()
            worker.kill()
            assert process.stdout.read().endswith(b"\n")
            [line] = process.stderr.read().decode().splitlines()
            assert line.startswith("localapi: ")
            assert process.wait(timeout=60) == 1


def test_a_reader_that_leaves_is_no_traceback(server: Server) -> None:
    script = f'"{sys.executable}" -m localapi chat echo "$(seq 20000)" | head -1'
    done = subprocess.run(
        ["sh", "-c", script], env=environment(server), capture_output=True, text=True, timeout=100, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_the_line_of_the_page_with_a_pipe_works(server: Server) -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    found = re.search(r'^(echo ".*) \| uv run localapi (chat .*)$', page, re.MULTILINE)
    assert found
    script = f'{found[1]} | "{sys.executable}" -m localapi {found[2]}'
    done = subprocess.run(
        ["sh", "-c", script], env=environment(server), capture_output=True, text=True, timeout=100, check=True
    )
    assert "capital of France" in done.stdout
