"""Loading: progress where it goes well, and one line for people where it does not."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi

from localapi.worker.hub import repository
from localapi.worker.llm import float32, mlx_lm
from localapi.worker.llm.float32 import Widened
from localapi.worker.llm.prompt import NO_TEMPLATE_NOTE
from localapi.worker.model import CannotLoad, Host
from localapi.worker.protocol import Loading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def load(path: object, **options: Any) -> mlx_lm.MlxLm:
    return mlx_lm.load({"path": str(path), **options}, Host(lambda _: None, lambda: None))


def edit_config(folder: Path, **changes: Any) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def truncate(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def name_a_missing_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("fault", [AttributeError("no scales"), None], ids=["raises", "gives no numbers"])
def test_a_model_that_does_not_compute_in_float32_is_loaded_as_it_is_stored(
    tiny_model: Path, fault: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: Any, **_: Any) -> Widened:
        if fault is not None:
            model.model = None
        else:
            model.model.norm.weight = model.model.norm.weight * float("nan")
        return Widened(done=True, says="wide")

    monkeypatch.setattr(float32, "widen", spoil)
    engine = mlx_lm.load({"path": str(tiny_model)}, Host(lambda _: None, lambda: None, fast_blas="a fast one"))
    (note,) = [note for note in engine.loaded.notes if "Weights" in note]
    assert "as stored" in note


def test_progress_ends_with_all_the_bytes_of_the_weights(tiny_model: Path) -> None:
    reports: list[Loading] = []
    mlx_lm.load({"path": str(tiny_model)}, Host(reports.append, lambda: None))
    size = (tiny_model / "model.safetensors").stat().st_size
    assert {report.phase for report in reports} == {"reading weights"}
    assert {report.total for report in reports} == {size}
    assert reports[0].done == 0
    assert reports[-1].done > 0.9 * size


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "has no weights (model*.safetensors); found: "),
        (lambda f: truncate(f / "model.safetensors", 300_000), "model.safetensors is damaged"),
        (lambda f: truncate(f / "model.safetensors", 5), "model.safetensors is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>" * 99), "model.safetensors is damaged"),
        (name_a_missing_shard, "lacks model-00002-of-00002.safetensors"),
        (lambda f: truncate(f / "config.json", 20), "config.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json"),
        (lambda f: edit_config(f, model_type="no_such_thing"), "'no_such_thing', which mlx-lm"),
        (lambda f: edit_config(f, model_type=None), "config.json"),
        (lambda f: edit_config(f, hidden_size=64), "Are config.json and the weights of the same model?"),
        (lambda f: edit_config(f, model_file="evil.py"), "does not run code from models"),
        (lambda f: truncate(f / "tokenizer.json", 100), "The tokenizer in"),
        (lambda f: (f / "tokenizer.json").write_text('{"version": 1}'), "The tokenizer in"),
        (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "The tokenizer in"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(folder)
    with pytest.raises(CannotLoad) as refused:
        load(folder)
    assert says in str(refused.value)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_context_is_what_the_entry_says_or_else_the_config(folder: Path) -> None:
    assert load(folder).loaded.context_length == 2048
    assert load(folder, context_length=100).loaded.context_length == 100
    assert "2048 tokens" in load(folder, context_length=4096).loaded.notes[0]
    assert mlx_lm.trained_context({"text_config": {"max_position_embeddings": 77}}) == 77


def test_a_tokenizer_without_a_template_is_noted(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    assert load(folder).loaded.notes == [NO_TEMPLATE_NOTE]


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a download needs."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"
    folder: Path
    hangs_up_after: int | None = None
    """Bytes of a file."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        if not self.path.startswith(("/api/models/me/tiny", "/me/tiny")):
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        if self.path.startswith("/api/models/me/tiny/revision/main"):
            files = [{"rfilename": file.name} for file in self.folder.iterdir()]
            return self.reply(200, json.dumps({"id": "me/tiny", "sha": self.COMMIT, "siblings": files}).encode(), {})
        if "/tree/" in self.path:
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in self.folder.iterdir()
            ]
            return self.reply(200, json.dumps(files).encode(), {})
        if "/resolve/" in self.path:
            body = (self.folder / self.path.split("/")[-1]).read_bytes()
            etag = hashlib.sha1(body).hexdigest()  # as git does
            return self.reply(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": self.COMMIT})
        return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.hangs_up_after])
            self.close_connection = self.hangs_up_after is not None


@pytest.fixture
def endpoint(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A hub on this machine that has the repository me/tiny."""
    Hub.folder = tiny_model
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        download = repository.snapshot_download
        cached = lambda *args, **options: download(*args, **options, cache_dir=tmp_path / "hub", endpoint=url)  # noqa: E731
        monkeypatch.setattr(repository, "snapshot_download", cached)
        monkeypatch.setattr(repository, "HfApi", partial(HfApi, endpoint=url))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_repository_is_downloaded_with_progress_and_then_read_from_disk(endpoint: ThreadingHTTPServer) -> None:
    reports: list[Loading] = []
    assert mlx_lm.load({"path": "me/tiny"}, Host(reports.append, lambda: None)).loaded.context_length == 2048
    downloading = [report for report in reports if report.phase == "downloading me/tiny"]
    assert downloading[-1].done > 900_000
    assert [report.done for report in downloading] == sorted(report.done for report in downloading)
    endpoint.shutdown()
    endpoint.server_close()
    assert load("me/tiny").loaded.context_length == 2048


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "me/nothing"}, "There is no Hugging Face repository me/nothing, or it is private"),
        ({"path": "me/tiny", "revision": "v9"}, "The Hugging Face repository me/tiny has no revision 'v9'."),
    ],
)
def test_the_hubs_refusals_are_told_apart(options: dict[str, Any], says: str) -> None:
    with pytest.raises(CannotLoad) as refused:
        load(**options)
    assert says in str(refused.value)


def test_without_a_network_the_message_names_the_repository_and_the_cause(
    endpoint: ThreadingHTTPServer,
) -> None:
    endpoint.shutdown()
    endpoint.server_close()
    with pytest.raises(CannotLoad) as refused:
        load("me/tiny")
    assert "me/tiny is not on this machine and cannot be downloaded" in str(refused.value)
    assert "refused" in str(refused.value).lower()


def refusal(path: object) -> str:
    with pytest.raises(CannotLoad) as refused:
        load(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_download_that_is_broken_off_goes_on_when_it_is_asked_for_again(
    endpoint: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Hub, "hangs_up_after", 200_000)
        told = refusal("me/tiny")
    assert told.startswith("Downloading me/tiny from Hugging Face failed: ")
    assert told.endswith("Check the network and try again; complete files are kept.")
    assert load("me/tiny").loaded.context_length == 2048
    endpoint.shutdown()


def test_half_a_repository_without_a_network_is_called_that(
    endpoint: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "hangs_up_after", 200_000)
    refusal("me/tiny")
    endpoint.shutdown()
    endpoint.server_close()
    told = refusal("me/tiny")
    assert told.startswith("me/tiny is incomplete on this machine and cannot be downloaded from Hugging Face")
    assert "Check the network and try again" in told


@pytest.mark.usefixtures("endpoint")
def test_a_disk_without_room_for_a_download_is_told_and_filled_when_it_has_some() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        told = refusal("me/tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free some disk space" in told
    assert "HF_HOME" in told
    assert load("me/tiny").loaded.context_length == 2048


@pytest.mark.usefixtures("endpoint")
def test_a_damaged_file_of_a_repository_is_named_where_it_is_and_downloaded_anew(tmp_path: Path) -> None:
    load("me/tiny")
    (weights,) = tmp_path.rglob("snapshots/*/model.safetensors")
    blob = weights.resolve()
    truncate(blob, 300_000)
    assert f"Delete {blob} and load the model again" in refusal("me/tiny")
    blob.unlink()
    assert load("me/tiny").loaded.context_length == 2048


def test_a_folder_that_is_gone_is_no_repository(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model") == (
        f"The folder {tmp_path / 'model'} does not exist. Restore it, or change the entry's path."
    )
