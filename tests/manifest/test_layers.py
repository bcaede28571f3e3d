"""Manifest, profile and environment over each other, and what a person is told of it."""

from __future__ import annotations

import pytest

from localapi.errors import ManifestError
from localapi.manifest import ManifestSource, describe, read

pytestmark = pytest.mark.everyday

MANIFEST = """
server: {log_level: warning}
chat:
  a: {backend: mlx-lm, path: demo, max_batch: 4, aliases: [x, y], defaults: {temperature: 0.5, stop: [a, b]}}
  b: {backend: echo}
"""


def test_maps_merge_and_lists_and_scalars_replace(manifest_of):
    profile = (
        "chat: {a: {aliases: [z], defaults: {stop: end, top_p: 0.5}}, c: {backend: echo}}\nserver: {drain_seconds: 1}"
    )

    manifest = manifest_of(MANIFEST, profile)

    serving = manifest.entries["a"].options
    assert list(manifest.entries) == ["a", "b", "c"]
    assert serving.aliases == ["z"]
    assert serving.defaults.model_dump(exclude_none=True) == {"temperature": 0.5, "stop": "end", "top_p": 0.5}
    assert (manifest.server.log_level, manifest.server.drain_seconds) == ("warning", 1)


def test_null_removes_an_entry(manifest_of):
    assert list(manifest_of(MANIFEST, "chat: {a: null}").entries) == ["b"]


def test_null_removes_a_section(manifest_of):
    assert manifest_of(MANIFEST, "chat:").entries == {}


def test_null_puts_an_option_back_to_its_default(manifest_of):
    manifest = manifest_of(MANIFEST, "chat: {a: {max_batch: ~, defaults: {temperature: ~}}}\nserver: ~")

    assert manifest.entries["a"].options.max_batch == 32
    assert manifest.entries["a"].options.defaults.temperature is None
    assert manifest.server.log_level == "info"


def test_null_for_what_is_not_there_means_nothing(manifest_of):
    assert list(manifest_of(MANIFEST, "chat: {nobody: ~, b: {preload: ~}}").entries) == ["a", "b"]


def test_another_backend_drops_the_options_that_only_the_former_one_knew(manifest_of):
    entry = manifest_of(MANIFEST, "chat: {a: {backend: echo}}").entries["a"]

    assert entry.identity.backend == "echo"
    assert entry.options.aliases == ["x", "y"]


def test_a_profile_changes_an_entry_without_naming_its_backend(manifest_of):
    assert manifest_of(MANIFEST, "chat: {a: {max_batch: 8}}").entries["a"].options.max_batch == 8


def test_a_relative_path_starts_from_the_file_that_said_it(write, folder):
    for name in ("models", "configs/models", "elsewhere/models"):
        write("{}", f"{name}/config.json")
    write("chat: {a: {backend: mlx-lm, path: ./models}, b: {backend: mlx-lm, path: ./models}}", "elsewhere/m.yaml")
    write("chat: {b: {path: ./models}}", "configs/p.yaml")

    entries = read(ManifestSource(folder / "elsewhere/m.yaml", "p")).entries

    assert entries["a"].options.path == str(folder / "elsewhere/models")
    assert entries["b"].options.path == str(folder / "configs/models")


def test_echo_answers_for_every_entry_and_leaves_the_rest(manifest_of):
    text = """
chat:
  a: {backend: mlx-lm, path: ./not-here, aliases: [x], defaults: {temperature: 0}, keep_alive: 1h}
speech:
  b: {backend: piper, path: ./not-here.onnx, voices: {alloy: one}}
"""
    manifest = manifest_of(text, "echo: true")

    a, b = manifest.entries.values()
    assert manifest.echo
    assert (a.identity.backend, str(a.kind), b.identity.backend, str(b.kind)) == ("echo", "chat", "echo", "speech")
    assert (a.options.aliases, a.options.defaults.temperature, a.keep_alive) == (["x"], 0, 3600)
    assert b.options.voices["alloy"].voice == "one"


def test_echo_still_checks_the_entries(problems_of):
    (line,) = problems_of("echo: true\nchat: {a: {backend: mlx-lm}}")

    assert line.startswith("models.yaml:2:8: chat.a.path: is missing")


def test_a_profile_is_looked_up_beside_the_manifest_then_here_then_among_the_shipped(write, folder):
    write("chat: {a: {backend: echo}}", "elsewhere/models.yaml")
    source = ManifestSource(folder / "elsewhere/models.yaml", "dev")

    def description() -> str | None:
        return read(source).entries["a"].options.description

    assert source.files()[1].parent.name == "configs"
    assert "local-chat" in read(source).entries
    write("chat: {a: {description: here}}", "configs/dev.yaml")
    assert description() == "here"
    write("chat: {a: {description: beside}}", "elsewhere/configs/dev.yaml")
    assert description() == "beside"


def test_a_profile_with_a_slash_or_a_suffix_is_a_path(write):
    write("chat: {a: {backend: echo}}")
    write("chat: {b: {backend: echo}}", "mine.yaml")

    assert [list(read(ManifestSource(None, name)).entries) for name in ("mine.yaml", "./mine.yaml")] == [["a", "b"]] * 2


def test_an_unknown_profile_lists_those_that_exist(write):
    write("{}")
    write("{}", "configs/mine.yaml")

    with pytest.raises(ManifestError, match=r"^profile: .*'nope'.*dev, echo, mine"):
        read(ManifestSource(None, "nope"))


@pytest.mark.parametrize("name", ["x" * 300, "./" + "x" * 300, "./a\0b"])
def test_a_profile_that_no_file_system_could_hold_is_a_problem(name, write):
    write("{}")

    with pytest.raises(ManifestError, match="profile"):
        read(ManifestSource(None, name))


@pytest.mark.parametrize("name", ["..", "", "a b", "-x"])
def test_a_profile_name_that_is_none_is_refused(name, write):
    write("{}")

    with pytest.raises(ManifestError, match="not a valid profile name"):
        read(ManifestSource(None, name))


def test_the_files_to_watch_are_named_even_while_they_are_missing():
    assert [str(path) for path in ManifestSource(None, "mine").files()] == ["models.yaml", "configs/mine.yaml"]


def test_a_pinned_source_does_not_take_a_missing_file_for_an_empty_environment(write, monkeypatch):
    monkeypatch.setenv("CHAT_MODEL_PATH", "demo")
    path = write("chat: {a: {backend: echo}}")
    source = ManifestSource().pinned()
    path.unlink()

    with pytest.raises(ManifestError, match="does not exist"):
        read(source)


def test_every_value_is_told_with_its_origin(manifest_of, monkeypatch):
    monkeypatch.setenv("CHAT_MODEL_ID", "a")
    monkeypatch.setenv("CHAT_MODEL_PATH", "org/model")

    rows = describe(manifest_of(MANIFEST, "chat: {a: {aliases: [z]}}\necho: false"))

    assert [(row.key, row.value, row.origin) for row in rows] == [
        ("server.drain_seconds", "30", "default"),
        ("server.keep_alive", "15m", "default"),
        ("server.max_keep_alive", "forever", "default"),
        ("server.log_level", "warning", "models.yaml:2:21"),
        ("chat.a.backend", "mlx-lm", "models.yaml:4:16"),
        ("chat.a.path", "org/model", "environment CHAT_MODEL_PATH"),
        ("chat.a.max_batch", "4", "models.yaml:4:47"),
        ("chat.a.aliases", "[z]", "configs/test.yaml:1:21"),
        ("chat.a.defaults.temperature", "0.5", "models.yaml:4:91"),
        ("chat.a.defaults.stop", "[a, b]", "models.yaml:4:102"),
        ("chat.b.backend", "echo", "models.yaml:5:16"),
        ("echo", "false", "configs/test.yaml:2:7"),
    ]


def test_a_located_path_is_told_beside_what_was_written(manifest_of, write, folder):
    write("{}", "models/config.json")

    rows = describe(manifest_of("chat: {a: {backend: mlx-lm, path: models}}"))

    assert rows[-1].value == f"models -> {folder}/models"
