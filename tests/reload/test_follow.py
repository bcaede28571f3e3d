"""The server follows its files: every way in which editors and people change them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from localapi.manifest import ManifestSource
from localapi.reload import watcher
from localapi.system.folders import WorkingFolder
from tests.server import Server, save, serving

ONE = "chat:\n  one: {backend: echo}\n"
TWO = ONE + "  two: {backend: echo}\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, ONE) as server:
        yield server


def ids(server: Server) -> list[str]:
    return [model["id"] for model in server.get("/v1/models")["data"]]


def test_an_atomic_save_is_followed_again_and_again(server: Server, tmp_path: Path) -> None:
    for revision, text in enumerate([TWO, ONE, TWO, ONE], 2):
        save(tmp_path / "models.yaml", text)
        server.wait_for(f"reloaded revision {revision}:")
    assert ids(server) == ["one"]


def test_a_file_written_in_place_is_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(TWO)
    server.wait_for(r"reloaded revision \d+: \+two")
    assert ids(server) == ["one", "two"]


def test_vims_way_of_saving_is_followed(server: Server, tmp_path: Path) -> None:
    manifest = tmp_path / "models.yaml"
    for revision, text in enumerate([TWO, ONE], 2):
        manifest.rename(tmp_path / "models.yaml~")
        manifest.write_text(text)
        (tmp_path / "models.yaml~").unlink()
        server.wait_for(f"reloaded revision {revision}:")


def test_a_deleted_file_leaves_the_last_revision_and_a_new_one_is_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").unlink()
    server.wait_for("still serving revision 1")
    assert ids(server) == ["one"]
    save(tmp_path / "models.yaml", TWO)
    server.wait_for(r"reloaded revision 2: \+two")


def test_an_invalid_file_leaves_the_last_revision_and_says_why(server: Server, tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", ONE + "  two: {bakend: echo}\n")
    server.wait_for("still serving revision 1")
    attempt = server.status()["last_attempt"]
    assert attempt["ok"] is False
    problem = attempt["problems"][0]
    assert (problem["line"], problem["key"].startswith("chat.two")) == (3, True)
    assert problem["source"].endswith("models.yaml")
    assert ids(server) == ["one"]
    save(tmp_path / "models.yaml", TWO)
    server.wait_for("reloaded revision 2")
    assert server.status()["last_attempt"]["problems"] == []


def test_twenty_saves_in_a_second_end_with_the_last(server: Server, tmp_path: Path) -> None:
    for count in range(20):
        save(tmp_path / "models.yaml", ONE + f"  number-{count}: {{backend: echo}}\n")
    server.wait_for(r"\+number-19")
    assert ids(server) == ["one", "number-19"]
    assert server.reload()["ok"]


def test_sighup_and_the_admin_endpoint_read_again(server: Server, tmp_path: Path) -> None:
    assert (server.reload()["ok"], server.reload()["revision"]) == (True, 1)
    save(tmp_path / "models.yaml", TWO)
    os.kill(server.process.pid, signal.SIGHUP)
    server.wait_for("reloaded revision 2")
    save(tmp_path / "models.yaml", "chat: [")
    reply = server.request("POST", "/admin/reload")
    assert reply.status == 422
    assert "expected a value" in reply.json()["problems"][0]["message"]


def test_aliases_and_defaults_change_in_place(server: Server, tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat:\n  one: {backend: echo, aliases: [uno], defaults: {max_tokens: 1}}\n")
    server.wait_for("reloaded revision 2: =one")
    body: Any = {"model": "uno", "messages": [{"role": "user", "content": "a b"}]}
    assert server.request("POST", "/v1/chat/completions", body).json()["choices"][0]["message"]["content"] == "a"
    assert server.model("one")["since_revision"] == 1


def test_a_linked_manifest_is_followed_through_its_links(tmp_path: Path) -> None:
    """As Kubernetes mounts a folder: models.yaml → ..data/models.yaml, ..data → a folder that is replaced."""
    for name, text in {"first": ONE, "second": TWO}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "models.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "models.yaml").symlink_to("..data/models.yaml")
    with serving(tmp_path) as server:
        (tmp_path / "..new").symlink_to("second")
        (tmp_path / "..new").replace(tmp_path / "..data")
        server.wait_for(r"reloaded revision 2: \+two")
        save(tmp_path / "second" / "models.yaml", ONE)
        server.wait_for("reloaded revision 3: -two")


def test_a_profile_is_followed_too(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    profile = tmp_path / "configs" / "mine.yaml"
    profile.write_text("chat: {one: null}\n")
    with serving(tmp_path, TWO, "--profile", "mine") as server:
        assert ids(server) == ["two"]
        save(profile, "chat: {two: {description: from the profile}}\n")
        server.wait_for(r"reloaded revision 2: \+one =two")
        assert server.get("/v1/models/two")["description"] == "from the profile"


def test_the_log_level_is_hot(server: Server, tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", ONE + "server: {log_level: debug}\n")
    server.wait_for("reloaded revision 2: server")
    save(tmp_path / "models.yaml", ONE + "server: {log_level: debug} # the same\n")
    server.wait_for("was read; it equals revision 2")


def test_a_running_request_is_drained_before_the_server_ends(tmp_path: Path) -> None:
    manifest = f"server: {{drain_seconds: 30}}\n{ONE}"
    with serving(tmp_path, manifest) as server:
        text = "word " * 20_000
        stream = server.client().chat.completions.create(
            model="one", messages=[{"role": "user", "content": text}], stream=True
        )
        chunks = iter(stream)
        got = next(chunks).choices[0].delta.content or ""
        server.send_signal(signal.SIGTERM)
        server.wait_for("shutting down")
        got += "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert got.split() == text.split()


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, endless_model: Path) -> None:
    save(tmp_path / "models.yaml", f"chat: {{endless: {{backend: mlx-lm, path: {endless_model}}}}}")
    server = Server(tmp_path)
    stream = server.client().chat.completions.create(
        model="endless", messages=[{"role": "user", "content": "go"}], stream=True, temperature=0
    )
    next(iter(stream))
    server.send_signal(signal.SIGINT)
    server.wait_for("waiting for 1 running request")
    server.send_signal(signal.SIGINT)
    assert server.stop() == 128 + signal.SIGINT


def test_requests_that_outlast_the_drain_end_with_an_error_event(tmp_path: Path, endless_model: Path) -> None:
    manifest = f"server: {{drain_seconds: 0.2}}\nchat: {{endless: {{backend: mlx-lm, path: {endless_model}}}}}"
    with serving(tmp_path, manifest) as server:
        stream = server.client().chat.completions.create(
            model="endless", messages=[{"role": "user", "content": "go"}], stream=True, temperature=0
        )
        chunks = iter(stream)
        next(chunks)
        server.send_signal(signal.SIGTERM)
        with pytest.raises(Exception, match="was unloaded"):
            for _ in chunks:
                pass


def test_a_server_whose_own_folder_is_deleted_says_so_and_follows_the_one_that_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with serving(folder, ONE) as server:
        shutil.rmtree(folder)
        server.wait_for(r"manifest rejected: models\.yaml: does not exist")
        status = server.status()
        assert (status["manifest"]["folder"], status["last_attempt"]["ok"]) == (str(folder.resolve()), False)
        folder.mkdir()
        save(folder / "models.yaml", TWO)
        server.wait_for(r"reloaded revision 2: \+two")
        save(folder / "models.yaml", ONE)
        server.wait_for("reloaded revision 3: -two")


def test_a_model_loads_also_while_the_servers_own_folder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with serving(folder, "chat: {demo: {backend: mlx-lm, path: demo}}") as server:
        shutil.rmtree(folder)
        reply = server.request("POST", "/admin/models/demo/load")
        assert (reply.status, reply.json()["state"]) == (200, "ready")


def test_a_folder_that_takes_the_manifests_place_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "models.yaml").write_text(ONE)
    with serving(tmp_path, None, "--manifest", str(folder / "models.yaml")) as server:
        folder.rename(tmp_path / "old")
        folder.mkdir()
        save(folder / "models.yaml", TWO)
        server.wait_for(r"reloaded revision 2: \+two")
        save(folder / "models.yaml", ONE)
        server.wait_for("reloaded revision 3: -two")


async def test_where_the_system_tells_nothing_any_more_changes_are_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a folder goes at the moment in which it is watched."""

    async def failing(*_: object, **__: object) -> AsyncIterator[object]:
        raise ExceptionGroup("of a task", [RuntimeError("error in underlying watcher")])
        yield

    monkeypatch.setattr(watcher, "awatch", failing)
    monkeypatch.setattr(watcher, "LOOK_SECONDS", 0.05)
    heard = asyncio.Event()
    watching = watcher.Watch(lambda: ManifestSource(tmp_path / "models.yaml"), heard.set, WorkingFolder())
    running = asyncio.create_task(watching.run())
    while not (watching._known and "does not report changes" in caplog.text):  # noqa: ASYNC110  # a log tells nobody
        await asyncio.sleep(0.01)
    save(tmp_path / "models.yaml", ONE)
    await heard.wait()
    assert "(error in underlying watcher)" in caplog.text
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_look_that_fails_does_not_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where no thread can be started for it."""
    monkeypatch.setattr(watcher, "LISTEN_AGAIN_SECONDS", 0.0)
    heard = asyncio.Event()
    watching = watcher.Watch(lambda: ManifestSource(tmp_path / "models.yaml"), heard.set, WorkingFolder())
    failures, look = [RuntimeError("can't start new thread")], watching._state

    def state() -> watcher.State:
        if failures:
            raise failures.pop()
        return look()

    monkeypatch.setattr(watching, "_state", state)
    running, waiting = asyncio.create_task(watching.run()), asyncio.create_task(heard.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    assert (waiting.done(), running.done()) == (True, False)
    assert "could not be watched; retrying in" in caplog.text
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_included_files_are_followed_like_the_manifest_itself(tmp_path: Path) -> None:
    extra = tmp_path / "models.d"
    with serving(tmp_path, "include: [models.d/*.yaml]\n" + ONE) as server:
        extra.mkdir()
        (extra / "two.yaml").write_text("chat:\n  two: {backend: echo}\n")
        server.wait_for(r"reloaded revision 2: \+two")
        assert [Path(file["path"]).name for file in server.status()["manifest"]["files"]] == ["models.yaml", "two.yaml"]

        (extra / "two.yaml").write_text("chat:\n  two: {back")
        server.wait_for("still serving revision 2")
        assert ids(server) == ["one", "two"]
        (problem,) = server.status()["last_attempt"]["problems"]
        assert (Path(problem["source"]).name, problem["line"]) == ("two.yaml", 3)

        (extra / "two.yaml").write_text("chat:\n  two: {backend: echo, aliases: [second]}\n")
        server.wait_for("reloaded revision 3")
        (extra / "two.yaml").unlink()
        server.wait_for("reloaded revision 4: -two")
        assert ids(server) == ["one"]


def test_a_variable_of_dotenv_is_followed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FIRST_ALIAS=a\n")
    text = 'chat:\n  one:\n    backend: echo\n    aliases: ["${env.FIRST_ALIAS}"]\n'
    with serving(tmp_path, text) as server:
        assert server.model("one")["aliases"] == ["a"]
        save(tmp_path / ".env", "FIRST_ALIAS=b\n")
        server.wait_for("reloaded revision 2")
        assert server.model("one")["aliases"] == ["b"]
