"""`localapi transcribe` as a program beside a running server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.audio.encoder import encoded
from localapi.audio.formats import FORMATS
from tests import forked
from tests.server import Server, serving

ROOT = Path(__file__).parents[2]
MANIFEST = """
chat: {bird: {backend: echo}}
transcription: {ears: {backend: echo, max_file_mb: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transcribe")
    for name, seconds in (("a.wav", 1), ("b.wav", 12), ("long.wav", 60)):
        (folder / name).write_bytes(encoded(bytes(32_000 * seconds), FORMATS["wav"], 16_000))
    (folder / "text.wav").write_text("none")
    (folder / "out").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, MANIFEST) as server:
        yield server


def transcribe(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run_text("transcribe", *arguments, "--port", str(server.port), folder=server.folder)


def test_the_text_of_several_files_goes_to_standard_output(server: Server) -> None:
    done = transcribe(server, "a.wav", "b.wav")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Sound from 0.0 to 1.0 seconds.",
        "Sound from 0.0 to 10.0 seconds. Sound from 10.0 to 12.0 seconds.",
    ]


def test_the_name_of_the_output_chooses_the_format(server: Server, folder: Path) -> None:
    assert transcribe(server, "a.wav", "-o", "a.srt").returncode == 0
    assert (folder / "a.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,000\nSound from 0.0 to 1.0 seconds.\n"


def test_a_folder_gets_a_file_each(server: Server, folder: Path) -> None:
    assert transcribe(server, "a.wav", "b.wav", "-o", "out", "--format", "json", "--words").returncode == 0
    told = json.loads((folder / "out" / "b.json").read_text())
    assert (told["duration"], len(told["segments"]), len(told["words"])) == (12, 2, 12)
    assert (folder / "out" / "a.json").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nothing.wav"], 1, "nothing.wav"),
        (["text.wav"], 1, "audio"),
        (["long.wav"], 1, "1.0 MB"),
        (["a.wav", "--model", "bird"], 1, "ears"),
        (["a.wav", "b.wav", "-o", "both.srt"], 2, "folder"),
        (["a.wav", "--words"], 2, "json"),
        ([], 2, "FILES"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(server: Server, arguments: list[str], status: int, says: str) -> None:
    done = transcribe(server, *arguments)
    assert done.returncode == status
    assert says in done.stderr.splitlines()[-1]
