"""API keys in the manifest: where their secrets are, and that no message and no table ever shows one."""

from __future__ import annotations

import pytest

from localapi.errors import ManifestError
from localapi.manifest import ManifestSource, describe, holder, read

pytestmark = pytest.mark.everyday

SECRET = "sk-do-not-show-0123456789"
MODELS = "\nchat: {a: {backend: echo, aliases: [b]}, c: {backend: echo}}"


def keys(said: str) -> str:
    return f"server:\n  api_keys:\n    team: {said}{MODELS}"


def test_a_secret_comes_from_the_environment_dotenv_or_a_file(manifest_of, write, monkeypatch):
    monkeypatch.setenv("FROM_ENVIRONMENT", "e" * 16)
    write(f"FROM_DOTENV={'d' * 16}\nFROM_ENVIRONMENT=hidden-by-the-environment", ".env")
    write("f" * 16 + "\n", "keys/one")

    manifest = manifest_of(
        "server: {api_keys: {x: {env: FROM_ENVIRONMENT}, y: {env: FROM_DOTENV}, z: {file: keys/one, admin: true}}}"
    )

    found = {letter: holder(manifest.keys, letter * 16) for letter in "edf"}
    assert [(key.name, key.admin) for key in found.values() if key] == [("x", False), ("y", False), ("z", True)]
    assert holder(manifest.keys, "hidden-by-the-environment") is None
    assert [path.name for path in manifest.key_files] == [".env", "one"]


def test_a_file_is_looked_for_from_the_folder_of_who_says_it(manifest_of, write):
    write("p" * 16, "configs/secret")

    manifest = manifest_of("chat: {a: {backend: echo}}", "server: {api_keys: {p: {file: secret}}}")

    assert holder(manifest.keys, "p" * 16)


def test_models_are_told_by_ids_and_aliases(manifest_of, write):
    write(SECRET, "key")

    manifest = manifest_of(keys("{file: key, models: [b]}"))

    assert manifest.keys[0].models == {"a"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (SECRET, "5: server.api_keys.team: should be {env: NAME} or {file: path}"),
        ("12345678901234567890", "should be {env: NAME}"),
        (f"[{SECRET}]", "should be {env: NAME}"),
        ("{}", "should be either {env: NAME}"),
        (f"{{env: {SECRET}}}", "server.api_keys.team.env: should be the name of a variable"),
        ("{env: 12345678901234567890}", "server.api_keys.team.env: should be text"),
        ("{env: UNSET}", "server.api_keys.team.env: the variable is not set"),
        ("{env: BLANK}", "the variable is not set"),
        (f"{{file: {SECRET}}}", "server.api_keys.team.file: the file does not exist"),
        ("{file: empty}", "the file is empty"),
        ("{file: short}", "the secret in the file has 15 characters"),
        ("{file: blank}", "without spaces"),
        ("{file: binary}", "not UTF-8"),
        ("{file: .}", "not a regular file"),
        ("{file: long}", "at most 1000 characters"),
        ('{file: "a\\0b"}', "control character"),
        ("{env: GOOD, file: good}", "should be either"),
        (f"{{env: GOOD, secret: {SECRET}}}", "unknown key 'secret'"),
        ("{env: GOOD, models: [d]}", "server.api_keys.team.models.0: the manifest has no model 'd' (known: a, c, b)"),
        ("{env: GOOD, admin: 1}", "server.api_keys.team.admin: should be true or false"),
        (f"{{env: GOOD}}\n    other: {{env: GOOD}}  # {SECRET}", "the secret of the key 'team'"),
    ],
)
def test_what_is_wrong_is_told_at_its_line_without_the_secret(said, words, problems_of, write, monkeypatch):
    monkeypatch.setenv("GOOD", SECRET)
    monkeypatch.setenv("BLANK", "")
    for name, text in {"empty": " \n", "short": SECRET[:15], "blank": f"{SECRET} {SECRET}", "long": "x" * 1001}.items():
        write(text, name)
    write("", "binary").write_bytes(b"\xff\xfe" * 20)

    lines = problems_of(keys(said))

    assert any(words.removeprefix("5: ") in line for line in lines), lines
    assert all(line.startswith(("models.yaml:3:", "models.yaml:4:")) for line in lines)
    assert not any(SECRET[:12] in line or "123456789" in line for line in lines)


def test_the_table_and_the_manifest_show_no_secret(manifest_of, write):
    write(SECRET, "key")

    manifest = manifest_of(keys("{file: key}"))

    assert SECRET not in repr(manifest) + repr(describe(manifest))
    assert "digest" not in repr(manifest.keys)


def test_another_secret_is_another_manifest(manifest_of, write):
    write(SECRET, "key")
    before = manifest_of(keys("{file: key}"))
    write(SECRET + "2", "key")

    assert read(ManifestSource()) != before


def test_a_problem_elsewhere_does_not_show_a_key(problems_of):
    lines = problems_of(f"server: {{api_keys: {{x: {SECRET}, drain_seconds: soon}}}}\nchat: {{a: {{}}}}")

    assert len(lines) == 3
    assert not any(SECRET in line for line in lines)


def test_keys_without_models_are_nothing_to_serve_and_an_error_is_a_manifest_error(write):
    with pytest.raises(ManifestError):
        read(ManifestSource(write("server: {api_keys: sk-not-a-mapping-at-all}")))


def test_whoever_is_no_server_may_read_the_manifest_without_the_secrets(write):
    write(SECRET, "key")
    write(keys("{env: ELSEWHERE}\n    other: {file: key, models: [a]}"))

    with pytest.raises(ManifestError):
        read(ManifestSource())
    manifest = read(ManifestSource(), needs_secrets=False)

    assert list(manifest.entries) == ["a", "c"]
    assert [key.name for key in manifest.keys] == ["other"]
    [missing] = map(str, manifest.missing_secrets)
    assert missing.startswith("models.yaml:3:17: server.api_keys.team.env: ")


def test_what_is_wrong_with_a_key_for_everybody_is_wrong_without_the_secrets_too(write):
    write(keys("{file: gone}\n    other: {env: ELSEWHERE, models: [d]}"))

    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(), needs_secrets=False)

    assert [problem.key for problem in caught.value.problems] == [
        "server.api_keys.team.file", "server.api_keys.other.models.0",
    ]  # fmt: skip


def test_a_dotenv_that_is_no_text_is_told_at_the_key(write):
    write("", ".env").write_bytes(b"X=\xff")
    write(keys("{env: X}"))

    with pytest.raises(ManifestError) as caught:
        read(ManifestSource())

    [problem] = caught.value.problems
    assert problem.key == "server.api_keys.team.env"
    assert ".env cannot be read" in problem.message


def test_variables_with_secrets_of_entries_and_peers_are_known_too(manifest_of):
    """The processes of other entries get none of them."""
    manifest = manifest_of(
        "chat:\n"
        "  cloud: {backend: openai, url: 'http://127.0.0.1:1', key: {env: A}, headers: {x-b: {env: B}, x-c: c}}\n"
        "  here: {backend: mlx-lm, path: demo, env: {HF_TOKEN: {env: D}, E: e}}\n"
        "peers:\n  studio: {url: 'http://127.0.0.1:1', key: {env: F}}\n"
    )
    assert set(manifest.key_variables) == {"A", "B", "D", "F"}
