"""`localapi doctor` tells what is, and never waits for long."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from localapi.client import Server
from localapi.diagnosis import CHECKS, Finding, Subject, checks, examine
from localapi.errors import CannotInstall
from localapi.manifest import ManifestSource, Overrides, read
from localapi.system.openblas_library import package_library
from tests.cli.conftest import NOBODY, Run
from tests.fake_hub import hub_with
from tests.server import serving
from tests.unanswered import unanswered

ECHO = "chat: {bird: {backend: echo}}\n"
NOTHING = Subject(None, (), Server(NOBODY), 9, ("afplay",))


def findings(told: str, topic: str) -> list[Any]:
    return [each for each in json.loads(told)["findings"] if each["topic"] == topic]


def test_a_machine_without_a_hub_can_serve_what_it_has(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(ECHO)
    done = localapi("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "nothing is missing"
    assert f"! hub       {NOBODY} cannot be reached ([Errno 111] Connection refused)" in done.stdout
    assert "\x1b" not in done.stdout
    told = json.loads(localapi("doctor", "--json").stdout)
    assert told["ok"] is True
    assert {each["topic"] for each in told["findings"]} == {*CHECKS}
    assert [each["grade"] for each in told["findings"] if each["topic"] in ("python", "mlx", "manifest", "server")] == [
        "ok", "ok", "ok", "ok",
    ]  # fmt: skip


@pytest.mark.skipif(package_library() is None, reason="OpenBLAS takes MLX's place on Linux on x86-64 and arm64")
def test_what_mlx_multiplies_matrices_with_is_told_with_the_reason(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(ECHO)
    (folder / "mine.so").write_text("not a library")
    fast, off, broken = (
        findings(localapi("doctor", "--json", **variables).stdout, "mlx")
        for variables in ({}, {"LOCALAPI_BLAS": "off"}, {"LOCALAPI_BLAS": str(folder / "mine.so")})
    )
    assert [each["grade"] for each in (*fast, *off, *broken)] == ["ok", "note", "note"]
    assert "OpenBLAS" in fast[0]["says"]
    assert (off[0]["mend"], broken[0]["mend"]) == ("unset LOCALAPI_BLAS", "unset LOCALAPI_BLAS")
    assert "mine.so" in broken[0]["says"]


def test_a_manifest_that_never_comes_is_told(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(ECHO)
    with unanswered(folder / "models.yaml") as waits:
        done = localapi("doctor", "--json")
        assert waits()
    assert done.returncode == 1
    [found] = findings(done.stdout, "manifest")
    assert found["says"].endswith("models.yaml: could not be read within 5 s; is its drive connected?")
    assert findings(done.stdout, "server")


def test_what_the_manifest_needs_and_has_not_is_told_with_what_mends_it(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(
        "chat: {a: {backend: mlx-lm, path: me/model, revision: v2}, d: {backend: mlx-lm, path: demo}}\n"
        "speech: {b: {backend: mlx-audio, path: me/voice}}\n"
    )
    done = localapi("doctor", "--json", LOCALAPI_ENVIRONMENTS=str(folder / "none"))
    assert done.returncode == 1
    missing = [each for each in json.loads(done.stdout)["findings"] if each["grade"] == "missing"]
    assert [each["mend"] for each in missing] == [
        "localapi install mlx-audio", "localapi pull me/model --revision v2", "localapi pull me/voice",
    ]  # fmt: skip
    with hub_with({}) as hub:
        told = localapi("doctor", "--json", HF_ENDPOINT=hub.url).stdout
    assert [each["grade"] for each in findings(told, "models")] == ["note", "ok", "note"]
    assert "its first request downloads it" in findings(told, "models")[0]["says"]


def test_the_formats_of_models_on_this_machine_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/config.json").write_text("{}")
    (tmp_path / "models.yaml").write_text(
        "chat:\n  a: {backend: mlx-lm, path: demo}\n"
        "  b: {backend: mlx-lm, path: demo, tool_format: generic, reasoning_format: none}\n"
        "  c: {backend: mlx-lm, path: ./empty}\n  d: {backend: mlx-lm, path: me/model}\n  e: {backend: echo}\n"
    )
    subject = dataclasses.replace(NOTHING, manifest=read(ManifestSource(tmp_path / "models.yaml", None, Overrides())))
    found = checks.formats(subject)
    assert [(each.grade, each.says.partition(":")[0]) for each in found] == [("ok", "a"), ("ok", "b"), ("note", "c")]
    assert found[0].says == "a: tool_format json_tools, reasoning_format think"
    assert found[1].says == "b: tool_format generic, reasoning_format none"
    assert "tokenizer" in found[2].says

    monkeypatch.setattr(checks, "FORMATS_SECONDS", 0.01)
    assert {each.grade for each in checks.formats(subject)} == {"note"}


def test_a_broken_manifest_is_told_with_its_place(localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text("chat: {a: {backend: eko}}\nserver: {api_keys: {me: {env: NOT_SET}}}\n")
    done = localapi("doctor")
    assert done.returncode == 1
    assert "✗ manifest  models.yaml:1:21: chat.a.backend: unknown backend 'eko'" in done.stdout
    assert "missing, but needed by the manifest: 2" in done.stdout


def test_the_port_is_free_or_ours_or_somebody_elses(localapi: Run, folder: Path) -> None:
    with serving(folder, ECHO) as server:
        told = findings(localapi("doctor", "--json", PORT=str(server.port)).stdout, "server")
    assert [(each["grade"], "running on" in each["says"]) for each in told] == [("ok", True)]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (told,) = findings(localapi("doctor", "--json", PORT=str(port)).stdout, "server")
    assert (told["grade"], told["mend"]) == ("missing", f"localapi --port {port + 1}")


def test_a_hub_whose_address_cannot_be_found_in_time_is_told_of_each_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(checks.urllib.request, "urlopen", lambda *_, **__: contextlib.nullcontext(gate.wait()))
    monkeypatch.setattr(checks, "ANSWER_SECONDS", 0.1)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    checks._answer.cache_clear()
    (tmp_path / "models.yaml").write_text("chat: {a: {backend: mlx-lm, path: me/model}, b: {backend: echo}}\n")
    manifest = read(ManifestSource(tmp_path / "models.yaml", None, Overrides()))
    subject = dataclasses.replace(NOTHING, manifest=manifest)
    found = examine(subject, {"models": checks.files, "hub": checks.hub})
    gate.set()
    checks._answer.cache_clear()
    assert [(each.topic, each.grade) for each in found] == [("models", "missing"), ("models", "ok"), ("hub", "note")]
    assert "cannot be reached (no response within 0.1 s)" in found[-1].says


def test_a_check_that_hangs_is_told_as_that() -> None:
    gate = threading.Event()

    def hangs(_: Subject) -> list[Finding]:
        gate.wait()
        return []

    def breaks(_: Subject) -> list[Finding]:
        raise ZeroDivisionError

    def refuses(_: Subject) -> list[Finding]:
        raise CannotInstall("no")

    def works(_: Subject) -> list[Finding]:
        return [Finding("works", "ok", "yes")]

    checks = {"hangs": hangs, "breaks": breaks, "refuses": refuses, "works": works}
    found = examine(NOTHING, checks, limit=0.5)
    gate.set()
    assert [(each.topic, each.grade, each.says) for each in found] == [
        ("hangs", "note", "did not respond within 0.5 s"),
        ("breaks", "note", "could not be checked: ZeroDivisionError: "),
        ("refuses", "note", "no"),
        ("works", "ok", "yes"),
    ]


def test_a_peer_that_is_away_is_a_note_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("peers: {gone: {url: 'http://127.0.0.1:9'}}\n" + ECHO)
    subject = dataclasses.replace(NOTHING, manifest=read(ManifestSource(tmp_path / "models.yaml")))
    (found,) = checks.peers(subject)
    assert (found.grade, "127.0.0.1:9" in found.says) == ("note", True)
    assert [each.grade for each in checks.peers(NOTHING)] == ["ok"]


def test_traces_without_a_collector_are_a_note_and_without_packages_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models.yaml").write_text("server: {traces: {endpoint: 'http://127.0.0.1:9'}}\n" + ECHO)
    subject = dataclasses.replace(NOTHING, manifest=read(ManifestSource(tmp_path / "models.yaml")))
    assert [each.grade for each in checks.traces(NOTHING)] == ["ok"]
    assert [each.grade for each in checks.traces(subject)] == ["note"]

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    (found,) = checks.traces(subject)
    assert (found.grade, "opentelemetry" in (found.mend or "")) == ("missing", True)
