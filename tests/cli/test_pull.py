"""`localapi pull`: whole, and in parts, from a Hub on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

from localapi.worker.hub import pull as worker
from localapi.worker.hub import resumable_download
from localapi.worker.model import CannotLoad
from tests.cli.conftest import Run
from tests.fake_hub import Hub, hub_with

SIZE = 6_000_000
HALF = 3 * 1024 * 1024


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small file and a large one."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(random.Random(7).randbytes(SIZE))
    (folder / "picture.png").write_bytes(b"not asked for")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with hub_with({"me/model": repository}, gated=("me/gated",)) as hub:
        yield hub


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Works, also where these tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def blobs(tmp_path: Path, pattern: str) -> list[Path]:
    return list((tmp_path / "hf").rglob(f"blobs/{pattern}"))


def test_a_repository_comes_into_the_cache_with_progress(localapi: Run, hub: Hub, repository: Path) -> None:
    done = localapi("pull", "me/model", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == (repository / "model.safetensors").read_bytes()
    assert not (folder / "picture.png").exists()
    assert done.stderr.splitlines()[-1] == "me/model  5.7 MB of 5.7 MB (100%)"
    asked = len(hub.asked)
    assert localapi("pull", "me/model", HF_ENDPOINT=hub.url).returncode == 0
    assert len(hub.asked) == asked  # it is there


def interrupted(hub: Hub, environment: dict[str, str]) -> int:
    """Have the download stopped in the middle of the large file; the bytes that were there."""
    hub.stops_after = HALF
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "localapi.worker.hub.pull", "me/model"],
        env={**environment, "HF_ENDPOINT": hub.url}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as lines:
        came = next(
            line["done"] for line in map(json.loads, lines) if line["done"] > 2 * resumable_download.PIECE_BYTES
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == worker.INTERRUPTED
    hub.stops_after = None
    hub.goes_on.set()
    return int(came)


def test_an_interrupted_file_goes_on_where_it_was(
    localapi: Run, hub: Hub, repository: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    interrupted(hub, environment)
    (part,) = blobs(tmp_path, "*.part")
    begun = part.stat().st_size
    assert 0 < begun < SIZE
    done = localapi("pull", "me/model", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert hub.asked[-1] == ("model.safetensors", f"bytes={begun}-")
    content = (Path(done.stdout.strip()) / "model.safetensors").read_bytes()
    assert content == (repository / "model.safetensors").read_bytes()
    assert blobs(tmp_path, "*.part") == []


def test_a_beginning_of_something_else_is_not_taken_for_the_file(
    localapi: Run, hub: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    interrupted(hub, environment)
    (part,) = blobs(tmp_path, "*.part")
    part.write_bytes(bytes(part.stat().st_size))
    done = localapi("pull", "me/model", HF_ENDPOINT=hub.url)
    assert done.returncode == 1
    assert "was damaged in the download and has been deleted" in done.stderr
    again = localapi("pull", "me/model", HF_ENDPOINT=hub.url)
    digest = hashlib.sha256((Path(again.stdout.strip()) / "model.safetensors").read_bytes()).hexdigest()
    assert blobs(tmp_path, digest)


def test_ctrl_c_keeps_what_has_come_and_says_so(hub: Hub, environment: dict[str, str], tmp_path: Path) -> None:
    hub.stops_after = HALF
    process = subprocess.Popen(
        [sys.executable, "-m", "localapi", "pull", "me/model"],
        env={**environment, "HF_ENDPOINT": hub.url}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr as lines:
        assert next(lines).startswith("me/model  ")  # it has begun
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert "resumes the download" in lines.read()
    assert process.wait(timeout=60) == 130


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("me/gated",), "me/gated is gated. Accept its terms at https://huggingface.co/me/gated"),
        (("me/nothing",), "There is no Hugging Face repository me/nothing, or it is private."),
        (("me/model", "--revision", "v9"), "The Hugging Face repository me/model has no revision 'v9'."),
    ],
)
def test_the_hubs_refusals_are_one_line_each(arguments: tuple[str, ...], says: str, localapi: Run, hub: Hub) -> None:
    done = localapi("pull", *arguments, HF_ENDPOINT=hub.url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert says in line


def test_without_the_hub_there_is_one_clear_line(localapi: Run) -> None:
    done = localapi("pull", "me/model")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("localapi: me/model is not on this machine and cannot be downloaded from Hugging Face (")


def test_a_name_that_can_be_no_repository_is_a_wrong_command_line(localapi: Run) -> None:
    assert localapi("pull", "nonsense").returncode == 2


def test_a_full_disk_is_told_before_anything_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(resumable_download.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(CannotLoad, match=r"1\.86 GB, and 977 kB are free"):
        resumable_download._refuse_a_full_disk(tmp_path, 2_000_000_000)
    (tmp_path / "begun.part").write_bytes(bytes(1_500_000))
    resumable_download._refuse_a_full_disk(tmp_path, 2_000_000)


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_file_that_another_has_fetched_meanwhile_is_not_fetched_again(
    opened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, blob = tmp_path / "a1b2.part", tmp_path / "a1b2"

    def lock_of_another(*_: object) -> None:
        if opened == "before":
            part.rename(blob)
        blob.write_bytes(b"all")

    monkeypatch.setattr(
        resumable_download, "get_hf_file_metadata", lambda *_, **__: SimpleNamespace(etag="a1b2", size=3)
    )
    monkeypatch.setattr(resumable_download, "http_get", lambda *_, **__: pytest.fail("fetched again"))
    monkeypatch.setattr(resumable_download.fcntl, "flock", lock_of_another)
    reports: list[int | None] = []
    done = resumable_download.Done("", lambda loading: reports.append(loading.done), 3)
    resumable_download._fetch("me/model", "main", "config.json", tmp_path, done)
    assert (blob.read_bytes(), part.exists(), reports) == (b"all", False, [3])


def test_all_that_the_manifest_names_is_pulled(localapi: Run, folder: Path, hub: Hub) -> None:
    (folder / "models.yaml").write_text(
        "chat:\n  a: {backend: mlx-lm, path: me/model}\n  b: {backend: mlx-lm, path: demo}\n"
        "  c: {backend: mlx-lm, path: me/model, draft: me/model}\n"
    )
    done = localapi("pull", HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_one_that_fails_does_not_keep_the_others_away(localapi: Run, folder: Path, hub: Hub) -> None:
    (folder / "models.yaml").write_text(
        "chat:\n  a: {backend: mlx-lm, path: me/gated}\n  b: {backend: mlx-lm, path: me/model}\n"
        "  c: {backend: mlx-lm, path: me/nothing}\n"
    )
    done = localapi("pull", HF_ENDPOINT=hub.url)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    gated, *_, nothing, last = done.stderr.splitlines()
    assert gated.startswith("The Hugging Face repository me/gated is gated")
    assert nothing.startswith("There is no Hugging Face repository me/nothing")
    assert last == "localapi: 2 of 3 failed to download: me/gated, me/nothing"


def test_what_was_begun_of_an_old_revision_goes_when_a_new_one_is_there(
    localapi: Run, hub: Hub, tmp_path: Path
) -> None:
    blobs = tmp_path / "hf" / "hub" / "models--me--model" / "blobs"
    blobs.mkdir(parents=True)
    old, coming = blobs / "old.part", blobs / "coming.part"
    old.write_bytes(b"begun")
    with coming.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert localapi("pull", "me/model", HF_ENDPOINT=hub.url).returncode == 0
    assert (old.exists(), coming.exists()) == (False, True)


@pytest.mark.parametrize("arguments", [("pull", "me/model"), ("add", "me/model")])
def test_a_hub_that_is_mute_counts_as_out_of_reach(
    arguments: tuple[str, ...], localapi: Run, environment: dict[str, str], folder: Path
) -> None:
    """The bound is made short by what the child imports first: the test need not wait for the real one."""
    (folder / "sitecustomize.py").write_text(
        "import localapi.worker.hub.repository\nlocalapi.worker.hub.repository.ANSWER_SECONDS = 0.2\n"
    )
    paths = os.pathsep.join((str(folder), environment["PYTHONPATH"]))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        done = localapi(*arguments, HF_ENDPOINT=f"http://127.0.0.1:{mute.getsockname()[1]}", PYTHONPATH=paths)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "me/model is not on this machine and cannot be downloaded from Hugging Face (" in line


def test_whatever_an_engine_asks_for_is_pulled() -> None:
    """Or it would ask the Hub for the rest when it loads."""
    assert [each for each in DEFAULT_ALLOW_PATTERNS if not any(fnmatch(each, ours) for ours in worker.PATTERNS)] == []
    source = (Path(worker.__file__).parents[1] / "tts" / "speech_model.py").read_text()
    listed = source.partition("PATTERNS = (")[2].partition("\n)")[0]
    assert {word.strip('"*(), \n') for word in listed.split(",")} <= {each.strip("*") for each in worker.PATTERNS} | {
        ""
    }
