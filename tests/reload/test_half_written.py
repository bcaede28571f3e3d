"""A real server while its files are written, as programs write: nobody may notice a half-written one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import Server, serving, until

KEY = "a-key-that-nobody-guesses"
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
Write = Callable[[Path, str], None]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open for writing")


def manifest(alias: str) -> str:
    """With a beginning that is valid without its end, and that is longer in each edit."""
    comments = "".join(f"# {alias}: one of the many lines of a long comment\n" for _ in range(len(alias)))
    return f"""{comments}
chat:
  pinned:
    backend: mlx-lm
    path: demo
    pin: true
    keep_alive: forever
  first:
    backend: echo
    aliases: [{alias}]
  last:
    backend: echo
    description: the last of them
server:
  drain_seconds: 5
  api_keys:
    somebody: {{env: SOMEBODY_KEY, admin: true}}
"""


class Observer:
    """Asks all the time, as clients do, and keeps what none of them should have seen."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            status = self.server.request("GET", "/v1/models").status
            if status != 401:
                self.seen.add(f"{status} without a key")
            for name in ("pinned", "last"):
                status = self.server.request("GET", f"/v1/models/{name}", headers=WITH_KEY).status
                if status != 200:
                    self.seen.add(f"{status} for {name}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "models.yaml").write_text(manifest("x"))
    with serving(folder, env={"SOMEBODY_KEY": KEY}) as server:
        until(lambda: worker(server) is not None)
        yield server


def worker(server: Server) -> object:
    reply = server.request("GET", "/status", headers=WITH_KEY).json()
    return next(model["place"]["pid"] for model in reply["models"] if model["id"] == "pinned")


def is_known(server: Server, alias: str) -> bool:
    return server.request("GET", f"/v1/models/{alias}", headers=WITH_KEY).status == 200


def whole(path: Path, text: str) -> None:
    path.write_text(text)


def slowly(path: Path, text: str) -> None:
    """80 characters, then 10 ms of nothing."""
    with path.open("w") as file:
        for at in range(0, len(text), 80):
            file.write(text[at : at + 80])
            file.flush()
            time.sleep(0.01)


def with_a_pause(seconds: float, *, share: float = 0.5) -> Write:
    def write(path: Path, text: str) -> None:
        at = int(len(text) * share)
        with path.open("w") as file:
            file.write(text[:at])
            file.flush()
            time.sleep(seconds)
            file.write(text[at:])

    return write


def closed_in_the_middle(path: Path, text: str) -> None:
    """As a script does that writes line by line with >>."""
    at = text.index("  last:")
    path.write_text(text[:at])
    time.sleep(1)
    with path.open("a") as file:
        file.write(text[at:])


def line_by_line(path: Path, text: str) -> None:
    path.write_text("")
    for line in text.splitlines(keepends=True):
        with path.open("a") as file:
            file.write(line)
        time.sleep(0.05)


def truncated_first(path: Path, text: str) -> None:
    path.write_text("")
    time.sleep(1)
    path.write_text(text)


def over_the_old_one(path: Path, text: str) -> None:
    """Without truncating: for a moment the new text ends in the middle of the old one."""
    with path.open("r+") as file:
        file.write(text[:200])
        file.flush()
        time.sleep(0.5)
        file.write(text[200:])
        file.truncate()


def deleted_first(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(1)
    with_a_pause(0.5)(path, text)


def as_vim(path: Path, text: str) -> None:
    path.rename(f"{path}~")
    with_a_pause(0.5)(path, text)
    Path(f"{path}~").unlink()


def as_vim_with_backupcopy(path: Path, text: str) -> None:
    shutil.copy2(path, f"{path}~")
    with_a_pause(0.5)(path, text)
    Path(f"{path}~").unlink()


def as_a_draft_that_is_renamed(path: Path, text: str) -> None:
    draft = path.with_name(".draft")
    with_a_pause(0.5)(draft, text)
    draft.replace(path)


def by_a_shell(path: Path, text: str) -> None:
    """Write through a pipe of `cat`, with a pause."""
    with subprocess.Popen(["sh", "-c", f"cat > '{path}'"], stdin=subprocess.PIPE, text=True) as cat:
        assert cat.stdin is not None
        cat.stdin.write(text[: len(text) // 2])
        cat.stdin.flush()
        time.sleep(0.5)
        cat.stdin.write(text[len(text) // 2 :])


def by_cp(path: Path, text: str) -> None:
    draft = path.with_name("draft")
    draft.write_text(text)
    subprocess.run(["cp", draft, path], check=True)


WAYS: dict[str, Write] = {
    "whole": whole,
    "slowly": slowly,
    "with a pause of 0.15 s": with_a_pause(0.15),
    "with a pause of 0.5 s": with_a_pause(0.5),
    "with a pause of 1 s": with_a_pause(1),
    "with a pause before its last line": with_a_pause(1, share=0.9),
    "closed in the middle": closed_in_the_middle,
    "line by line": line_by_line,
    "truncated first": truncated_first,
    "over the old one": over_the_old_one,
    "deleted first": deleted_first,
    "as vim": as_vim,
    "as vim with backupcopy": as_vim_with_backupcopy,
    "as a draft that is renamed": as_a_draft_that_is_renamed,
    "by a shell": by_a_shell,
    "by cp": by_cp,
}


@pytest.mark.parametrize("way", WAYS)
def test_nobody_notices_how_the_manifest_is_written(server: Server, way: str) -> None:
    number = list(WAYS).index(way)
    alias, before, lines = f"alias-{'x' * number}{number}", worker(server), len(server.lines)

    with Observer(server) as observer:
        WAYS[way](server.folder / "models.yaml", manifest(alias))
        until(lambda: is_known(server, alias))

    assert observer.seen == set()
    assert worker(server) == before
    assert [line for line in server.lines[lines:] if "refused" in line] == []


@pytest.mark.parametrize("how", ["POST /admin/reload", "SIGHUP"])
def test_a_reload_by_hand_waits_for_a_file_that_is_being_written(server: Server, how: str) -> None:
    path, alias = server.folder / "models.yaml", f"by-hand-{len(how)}"
    text, before, lines = manifest(alias * 4).replace(alias * 4, alias), worker(server), len(server.lines)

    def ask() -> None:
        if how == "SIGHUP":
            os.kill(server.process.pid, signal.SIGHUP)
        else:
            replies.append(server.request("POST", "/admin/reload", headers=WITH_KEY))

    replies: list[object] = []
    with Observer(server) as observer, path.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.7)
        file.write(text[len(text) // 2 :])
        file.close()
        asking.join()
        until(lambda: is_known(server, alias))

    assert (observer.seen, worker(server)) == (set(), before)
    assert [line for line in server.lines[lines:] if "refused" in line] == []
    assert [reply.status for reply in replies] == [200] * (how != "SIGHUP")  # type: ignore[attr-defined]


@on_linux
def test_a_program_that_never_closes_the_file_does_not_keep_edits_away(server: Server) -> None:
    path = server.folder / "models.yaml"

    with path.open("w") as file:
        file.write(manifest("kept-open"))
        file.flush()
        until(lambda: is_known(server, "kept-open"))


def test_a_file_that_really_takes_away_the_keys_is_followed(tmp_path: Path) -> None:
    text = manifest("x").replace("mlx-lm\n    path: demo", "echo")
    with serving(tmp_path, text, env={"SOMEBODY_KEY": KEY}) as server:
        (tmp_path / "models.yaml").write_text(text[: text.index("server:")])

        server.wait_for(r"reloaded revision 2: server")
        assert server.request("GET", "/v1/models").status == 200


def test_a_profile_that_is_being_written_keeps_its_keys(tmp_path: Path) -> None:
    profile = tmp_path / "configs" / "mine.yaml"
    profile.parent.mkdir()
    text = "# by whom it is used\nserver:\n  api_keys:\n    somebody: {env: SOMEBODY_KEY, admin: true}\n"
    profile.write_text(text)
    longer = "# a comment that is longer than all that was said before\n" * 4 + text + "chat: {more: {backend: echo}}\n"
    manifest = "chat: {last: {backend: echo}, pinned: {backend: echo}}"
    with serving(tmp_path, manifest, "--profile", "mine", env={"SOMEBODY_KEY": KEY}) as server:
        with Observer(server) as observer:
            with_a_pause(1)(profile, longer)
            server.wait_for(r"reloaded revision 2: \+more")

        assert observer.seen == set()


@pytest.mark.parametrize(
    ("name", "said", "content"),
    [
        (".env", "env: SOMEBODY_KEY", f"# what somebody sends\nSOMEBODY_KEY={KEY}\n"),
        ("somebody.key", "file: ./somebody.key", f"{KEY}\n"),
    ],
)
def test_a_secret_is_not_taken_before_it_is_whole(tmp_path: Path, name: str, said: str, content: str) -> None:
    other = f"another-{KEY}-that-is-longer"
    (tmp_path / name).write_text(content)
    entries = "chat: {last: {backend: echo}, pinned: {backend: echo}}"
    with serving(tmp_path, f"server: {{api_keys: {{somebody: {{{said}, admin: true}}}}}}\n{entries}\n") as server:
        with_a_pause(1, share=0.8)(tmp_path / name, content.replace(KEY, other))
        before = server.request("GET", "/v1/models", headers=WITH_KEY).status
        server.wait_for("reloaded revision 2: server")
        after = server.request("GET", "/v1/models", headers={"Authorization": f"Bearer {other}"}).status

        assert (before, after) == (200, 200)
        assert [line for line in server.lines if "refused" in line] == []
