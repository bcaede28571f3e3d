"""A manifest in several files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localapi.errors import CannotEdit, ManifestError
from localapi.manifest import ManifestSource, adding, read, removing
from localapi.manifest.including import MAX_FILES, MAX_LEVELS, matches
from tests.piper_voice import make_voice

pytestmark = pytest.mark.everyday

ECHO = "chat: {{{}: {{backend: echo}}}}"


def ids() -> list[str]:
    return list(read(ManifestSource()).entries)


def problems(path: Path | None = None) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(path))
    return str(caught.value).splitlines()


def test_patterns_are_relative_to_their_file_and_sorted(write):
    write("include: [models.d/*.yaml, more/last.yaml]\n" + ECHO.format("own"))
    for name in ("b", "a", ".hidden", "c"):
        write(ECHO.format(name.strip(".")), f"models.d/{name}.yaml")
    write("chat: {ignored: {}}", "models.d/a.yml")
    write("include: inner/*\n" + ECHO.format("last"), "more/last.yaml")
    write(ECHO.format("inner"), "more/inner/x.yaml")

    assert ids() == ["own", "a", "b", "c", "last", "inner"]
    assert [str(file.path) for file in read(ManifestSource()).files] == [
        "models.yaml", "models.d/a.yaml", "models.d/b.yaml", "models.d/c.yaml", "more/last.yaml", "more/inner/x.yaml",
    ]  # fmt: skip


def test_a_pattern_may_name_folders_and_may_match_nothing(write):
    write("include: ['*/models.yaml', nowhere/*.yaml]")
    for name in ("b", "a"):
        write(ECHO.format(name), f"{name}/models.yaml")
    write("{}", "plain-file")

    assert ids() == ["a", "b"]


def test_options_of_the_server_keys_and_peers_may_be_spread(write, monkeypatch):
    monkeypatch.setenv("ONE", "1" * 16)
    monkeypatch.setenv("TWO", "2" * 16)
    write("include: [x.yaml]\nserver: {drain_seconds: 1, api_keys: {one: {env: ONE}}}\nspeech:")
    write("server: {keep_alive: 2, api_keys: {two: {env: TWO}}}\nspeech: {s: {backend: echo}}", "x.yaml")

    manifest = read(ManifestSource())

    assert (manifest.server.drain_seconds, manifest.server.keep_alive) == (1, 2)
    assert [key.name for key in manifest.keys] == ["one", "two"]
    assert list(manifest.entries) == ["s"]


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        (ECHO.format("a"), ECHO.format("a"), "chat.a"),
        ("server: {drain_seconds: 1}", "server: {drain_seconds: 1}", "server.drain_seconds"),
        ("echo: true", "echo: true", "echo"),
        (ECHO.format("a"), "speech: {a: {backend: echo}}", "speech.a"),
        (ECHO.format("a"), "chat: {b: {backend: echo, aliases: [a]}}", "chat.b.aliases.0"),
    ],
)
def test_what_two_files_say_is_an_error_with_both_places(write, first, second, key):
    write("include: [one.yaml, two.yaml]")
    write(f"\n{first}", "one.yaml")
    write(f"\n\n{second}", "two.yaml")

    (problem,) = problems()

    assert problem.startswith("two.yaml:3:")
    assert f" {key}: " in problem
    assert "one.yaml:2:" in problem


def test_errors_have_the_line_of_their_own_file_and_the_order_of_the_files(write):
    write("include: [models.d/*.yaml]\nchat: {a: {}}")
    write("\nchat:\n  c: {bakend: echo}", "models.d/1.yaml")
    write("chat:\n  d: {backend: echo\n", "models.d/2.yaml")
    assert [line.split(": ")[0] for line in problems()] == ["models.d/2.yaml:3:1"]

    write("chat:\n  d: {backend: nope}\n", "models.d/2.yaml")
    assert [line.split(": ")[0] for line in problems()[:3]] == [
        "models.yaml:2:8", "models.d/1.yaml:3:7", "models.d/2.yaml:2:16",
    ]  # fmt: skip


@pytest.mark.parametrize("include", ["models.yaml", "[b.yaml]", "'*.yaml'"])
def test_a_loop_is_an_error(write, include):
    write(f"include: {include}")
    if "models" not in include:
        write("include: ./models.yaml", "b.yaml")

    assert any("include" in line for line in problems())


def test_a_file_that_is_included_twice_is_an_error(write):
    write("include: [a.yaml, 'a*.yaml']")
    write("{}", "a.yaml")

    (problem,) = problems()

    assert problem.startswith("models.yaml:1:19: include: a.yaml")
    assert "models.yaml:1:11" in problem


@pytest.mark.parametrize("include", ["missing.yaml", "[missing/a.yaml]"])
def test_a_missing_file_is_an_error_unless_a_pattern_names_it(write, include):
    write(f"chat: {{}}\ninclude: {include}")

    (problem,) = problems()

    assert problem.startswith("models.yaml:2:1")


@pytest.mark.parametrize("include", ["1", "{a: b}", "[[a.yaml]]", "['']", "'**/*.yaml'", "[a.yaml, ~]"])
def test_what_is_no_path_is_an_error(write, include):
    write(f"include: {include}")
    write("{}", "a.yaml")

    assert problems()[0].startswith("models.yaml:1:")


def test_levels_and_files_are_bounded(write):
    for level in range(MAX_LEVELS + 2):
        write(f"include: {level + 1}.yaml", f"{level}.yaml")
    assert any(str(MAX_LEVELS) in line for line in problems(write("include: 0.yaml")))

    for number in range(MAX_FILES + 1):
        write("{}", f"many/{number}.yaml")
    assert any(str(MAX_FILES) in line for line in problems(write("include: many/*")))


def test_a_profile_may_include_too_and_takes_precedence(write):
    write("include: a.yaml")
    write(ECHO.format("a"), "a.yaml")
    write("include: ../b.yaml", "configs/p.yaml")
    write("chat: {a: {aliases: [x]}, b: {backend: echo}}", "b.yaml")

    manifest = read(ManifestSource(profile="p"))

    assert list(manifest.entries) == ["a", "b"]
    assert manifest.entries["a"].options.aliases == ["x"]


def test_paths_are_relative_to_the_file_that_names_them(write, folder):
    write("include: models.d/*.yaml")
    write("speech: {a: {backend: piper, path: ./voice.onnx}}", "models.d/a.yaml")
    make_voice(folder / "models.d/voice.onnx")

    assert read(ManifestSource()).entries["a"].identity.options["path"] == str(folder / "models.d/voice.onnx")


def test_all_files_are_watched_and_so_are_the_folders_of_patterns(write, folder):
    write("include: [models.d/*.yaml, missing.yaml]")
    write("include: ['x/*', ", "models.d/half-written.yaml")

    source = ManifestSource()

    assert [str(path) for path in source.files()] == ["models.yaml", "models.d/half-written.yaml", "missing.yaml"]
    assert {(str(path), pattern) for path, pattern in source.patterns()} == {("models.d", "*.yaml")}

    write("include: [models.d/*.yml]")  # within the same second, with another size
    assert [str(path) for path in source.files()] == ["models.yaml"]


def test_an_entry_is_removed_from_its_own_file_and_added_to_the_manifest(write, folder):
    write("include: models.d/*.yaml\n# mine\n" + ECHO.format("own"))
    write("chat:\n  a: {backend: echo}\n  b: {backend: echo}  # stays\n", "models.d/x.yaml")

    removing(ManifestSource(), "a").save()
    adding(ManifestSource(), "chat", "c", {"backend": "echo"}).save()

    assert (folder / "models.d/x.yaml").read_text() == "chat:\n  b: {backend: echo}  # stays\n"
    assert ids() == ["own", "c", "b"]
    with pytest.raises(ManifestError, match=r"x\.yaml:2:3"):
        adding(ManifestSource(), "chat", "b", {"backend": "echo"})
    with pytest.raises(CannotEdit, match="own, c, b"):
        removing(ManifestSource(), "nobody")


def test_links_to_one_file_are_the_same_file(write, folder):
    write("include: models.d/*.yaml")
    write("{}", "models.d/a.yaml")
    os.symlink("a.yaml", folder / "models.d/b.yaml")

    assert "already included" in problems()[0]


@pytest.mark.parametrize(
    ("name", "pattern", "matching"),
    [("a.yaml", "*.yaml", True), (".a.yaml", "*.yaml", False), (".a.yaml", ".*", True), ("a.yml", "a.y?l", True)],
)
def test_patterns_are_those_of_a_shell(name, pattern, matching):
    assert matches(name, pattern) is matching
