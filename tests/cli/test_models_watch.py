"""`localapi models`: what a running server has, once and as it changes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from localapi.cli.models_watch import after, happenings, requests_of
from localapi.cli.server_status import HEAD, ModelRow, columns, most_active, troubles
from localapi.cli.text_table import table
from localapi.client import Event
from tests.server import Server, save, serving
from tests.terminal import CTRL_C, terminal

ROOT = Path(__file__).parents[2]
MANIFEST = "chat: {bird: {backend: echo, aliases: [gpt-4o]}, demo: {backend: mlx-lm, path: demo}}"
MORE = "chat: {bird: {backend: echo, aliases: [gpt-4o]}, demo: {backend: mlx-lm, path: demo}, late: {backend: echo}}"


def command(server: Server, *arguments: str, key: str = "") -> list[str]:
    return [sys.executable, "-m", "localapi", "models", "--port", str(server.port), *arguments]


def models(server: Server, *arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LOCALAPI_API_KEY": key}
    return subprocess.run(command(server, *arguments), env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, MANIFEST) as server:
        yield server


def test_the_table_shows_each_model_and_the_json_more(server: Server, tmp_path: Path) -> None:
    lines = models(server).stdout.splitlines()
    assert lines[0].split()[:4] == ["model", "kind", "backend", "state"]
    assert lines[1].split() == ["bird", "chat", "echo", "unloaded", "0", "0", "gpt-4o"]
    listed = json.loads(models(server, "--json").stdout)
    assert [(model["id"], model["state"], model["running"]) for model in listed] == [
        ("bird", "unloaded", 0), ("demo", "unloaded", 0),
    ]  # fmt: skip
    save(tmp_path / "models.yaml", "chat: {bird: {backend: eko}}")
    server.reload()
    assert "models.yaml:1:24: chat.bird.backend: unknown backend 'eko'" in models(server).stdout


def test_where_no_server_runs_it_is_one_line(server: Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "localapi", "models", "--port", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "http://127.0.0.1:1" in line


def test_a_key_without_the_admin_right_sees_its_models(tmp_path: Path) -> None:
    (tmp_path / "guest.key").write_text("g" * 16)
    keys = "server: {api_keys: {guest: {file: guest.key, models: [bird]}}}"
    with serving(tmp_path, f"{MANIFEST}\n{keys}") as server:
        done = models(server, key="g" * 16)
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["model", "bird"]
        assert json.loads(models(server, "--json", key="g" * 16).stdout)[0]["running"] is None
        watched = models(server, "--watch", key="g" * 16)
        assert (watched.returncode, "admin right" in watched.stderr) == (1, True)
        refused = models(server)
        assert (refused.returncode, "LOCALAPI_API_KEY" in refused.stderr) == (1, True)


def test_on_a_terminal_the_table_follows_the_manifest_and_the_models(server: Server, tmp_path: Path) -> None:
    env = {"PORT": str(server.port)}
    with terminal(tmp_path, "models", "--watch", env=env) as watch:
        watch.wait_for(r"bird +chat +echo +unloaded")
        save(tmp_path / "models.yaml", MORE)
        watch.wait_for(r"\d\d:\d\d:\d\d revision 2: \+late")
        watch.wait_for(r"late +chat +echo +unloaded")
        save(tmp_path / "models.yaml", "chat: {bird: {backend: eko}}")
        watch.wait_for(r"\d\d:\d\d:\d\d the manifest was rejected; still serving revision 2")
        watch.wait_for(r"models.yaml:1:24: chat.bird.backend: unknown backend 'eko'", times=2)  # also below the table
        server.request("POST", "/admin/models/demo/load")
        watch.wait_for(r"demo: (unloaded|loading) → ready")
        watch.wait_for(r"demo +chat +mlx-lm +ready +\d+ MB")
        watch.type(CTRL_C)
        assert watch.end() == 0
        assert watch.text.count("late   chat") == 1  # the table was drawn in its place


def test_elsewhere_each_change_is_a_line_and_ctrl_c_is_its_end(server: Server, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(server, "--watch"), env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()[8:] == " bird: unloaded\n"
            assert process.stdout.readline()[8:] == " demo: unloaded\n"
            save(tmp_path / "models.yaml", MORE)
            line = next(line for line in process.stdout if "revision" in line)
            assert line[8:] == " revision 2: +late\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_it_ends_when_nobody_reads_on_though_nothing_changes() -> None:
    program = "from localapi.cli.models_watch import end_with_the_reader as end; print(flush=True); end(); print(1)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            process.stdout.close()
            assert (process.wait(timeout=30), process.stderr and process.stderr.read()) == (1, b"")
        finally:
            process.kill()


def test_it_waits_for_a_server_that_has_ended(tmp_path: Path) -> None:
    with serving(tmp_path, MANIFEST) as server:
        port = server.port
        with terminal(tmp_path, "models", "--watch", env={"PORT": str(port)}) as watch:
            watch.wait_for(r"bird +chat")
            server.stop()
            watch.wait_for("the server has stopped")
            with serving(tmp_path, MORE, "--port", str(port)):
                watch.wait_for(r"late +chat")
            watch.type(CTRL_C)
            assert watch.end() == 0


def status(**changes: object) -> dict[str, object]:
    model = {
        "id": "a", "kind": "chat", "backend": "echo", "state": "ready", "aliases": [], "pinned": False, "leases": 0,
        "waiting": 0, "progress": None, "last_error": None, "memory_bytes": 0,
        "place": {"kind": "server", "at": None, "pid": None, "parts": [], "replicas": None},
    }  # fmt: skip
    return {"last_attempt": None, "preparing": False, "warnings": [], "models": [{**model, **changes}]}


def test_what_happened_is_told_in_lines() -> None:
    before = status()
    failed = after(before, Event("change", json.dumps(status(state="failed", last_error="no\x1b[31m room"))))
    assert list(happenings(before, failed)) == ["a: ready → failed", "a: no␛[31m room"]
    busy = after(before, Event("change", json.dumps(status(leases=2, waiting=1))))
    assert list(happenings(before, busy)) == []
    assert list(requests_of(before, busy)) == ["a: 2 running, 1 waiting"]
    loading = status(state="loading", progress={"phase": "weights", "done": 1, "total": 4})
    assert list(requests_of(before, loading)) == ["a: weights 25 %"]


def test_a_model_that_cannot_answer_is_told_with_the_reason() -> None:
    assert list(troubles(status(healthy=False, unhealthy_reason="out of\ndisk"))) == ["a: unhealthy: out of disk"]
    assert list(troubles(status(healthy=True, unhealthy_reason=None))) == []


def attempt(at: float, revision: int, *, added: Sequence[str] = (), problems: Sequence[str] = ()) -> dict[str, object]:
    changes = {"added": added, "changed": (), "updated": (), "removed": (), "server": False}
    place = {"source": "models.yaml", "line": 1, "column": 1, "key": "chat.a.backend"}
    found = [{**place, "message": text} for text in problems]
    return {"at": at, "ok": not problems, "revision": revision, "changes": changes, "problems": found}


def test_a_change_is_told_though_the_same_file_was_read_again_before_the_status_came() -> None:
    first = attempt(1, 1, added=["a"])
    before = {**status(), "last_change": first, "last_attempt": first}
    change, again = attempt(2, 2, added=["late"]), attempt(3, 2)
    refused = attempt(4, 2, problems=["unknown backend"])

    def told(last_change: object, last_attempt: object) -> list[str]:
        now = {**before, "last_change": last_change, "last_attempt": last_attempt}
        return list(happenings(before, now))

    assert told(change, change) == told(change, again) == ["revision 2: +late"]
    assert told(first, attempt(2, 1)) == ["revision 1: nothing changed"]
    rejected = [
        "the manifest was rejected; still serving revision 2",
        "models.yaml:1:1: chat.a.backend: unknown backend",
    ]
    assert told(change, refused) == ["revision 2: +late", *rejected]
    assert told(first, first) == []


def test_a_narrow_terminal_does_without_some_columns() -> None:
    cells = [["a-model", "chat", "mlx-lm", "ready", "1.0 GB", "0", "0", "9.5", "upstream lab", "gpt-4o"]]
    for width, names in ((100, HEAD), (70, HEAD[:-2]), (10, ("model", "state", "running", "tokens/s"))):
        assert [HEAD[at] for at in columns(cells, width)] == list(names)


def test_of_too_many_models_those_are_seen_that_do_something() -> None:
    states = ["unloaded", "ready", "unloaded", "failed", "unloaded"]
    found = [ModelRow(str(at), "chat", "echo", state, ()) for at, state in enumerate(states)]
    assert [row.id for row in most_active(found, 3)] == ["0", "1", "3"]
    assert [row.id for row in most_active(found, 9)] == ["0", "1", "2", "3", "4"]
    assert len(most_active(found, -2)) == 1


def test_names_of_wide_characters_do_not_move_the_columns() -> None:
    lines = table(["model", "kind"], [["日本語", "chat"], ["cafe\u0301", "chat"]])
    assert lines == ["model   kind", "日本語  chat", "cafe\u0301    chat"]
