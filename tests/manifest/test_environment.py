"""The environment over the files, and the environment alone."""

from __future__ import annotations

import pytest

from localapi.errors import ManifestError
from localapi.kinds import KINDS, SPEECH
from localapi.manifest import Overrides, describe

pytestmark = pytest.mark.everyday

MANIFEST = """
chat:
  local-chat: {backend: mlx-lm, path: demo, aliases: [x]}
speech:
  local-audio: {backend: auto, aliases: [tts-1]}
"""


@pytest.fixture
def env(monkeypatch):
    def env(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return env


def test_a_path_in_the_environment_wins_over_the_file(env, manifest_of):
    env(CHAT_MODEL_PATH="org/other")

    entry = manifest_of(MANIFEST).entries["local-chat"]

    assert (entry.options.path, entry.options.aliases) == ("org/other", ["x"])


def test_a_path_for_an_entry_that_no_file_has_adds_it(env, manifest_of):
    env(CHAT_MODEL_ID="mine", CHAT_MODEL_PATH="org/mine")

    entries = manifest_of(MANIFEST).entries

    assert list(entries) == ["local-chat", "mine", "local-audio"]
    assert (entries["mine"].identity.backend, entries["mine"].options.path) == ("mlx-lm", "org/mine")


def test_the_legacy_names_work_and_the_new_ones_win(env, manifest_of):
    env(MODEL_ID="mine", MODEL_PATH="org/old")
    assert manifest_of(MANIFEST).entries["mine"].options.path == "org/old"

    env(CHAT_MODEL_PATH="org/new")
    manifest = manifest_of(MANIFEST)

    assert manifest.entries["mine"].options.path == "org/new"
    assert ("chat.mine.path", "org/new", "environment CHAT_MODEL_PATH (MODEL_PATH=org/old is not used)") in [
        (row.key, row.value, row.origin) for row in describe(manifest)
    ]


def test_a_blank_value_is_not_set(env, manifest_of):
    env(CHAT_MODEL_PATH="", MODEL_PATH="  ", AUDIO_BACKEND=" ", ECHO_MODE="", CHAT_MODEL_ID="")

    assert manifest_of(MANIFEST).entries["local-chat"].options.path.endswith("model")


def test_audio_variables_change_the_backend_and_the_defaults(env, manifest_of, tmp_path):
    for name in ("me.wav", "you.wav"):
        (tmp_path / name).touch()
    env(
        AUDIO_BACKEND="mlx-audio-plus",
        AUDIO_MODEL_PATH="org/voice",
        AUDIO_REF_AUDIO="me.wav",
        AUDIO_REF_TEXT="hello",
        AUDIO_INSTRUCT_TEXT="calm",
        AUDIO_SOURCE_AUDIO="you.wav",
    )

    entry = manifest_of(MANIFEST).entries["local-audio"]

    assert entry.identity.backend == "mlx-audio-plus"
    assert entry.options.path == "org/voice"
    assert entry.options.aliases == ["tts-1"]
    assert entry.options.defaults.model_dump(exclude_none=True) == {
        "ref_audio": str(tmp_path / "me.wav"),
        "ref_text": "hello",
        "instruct_text": "calm",
        "source_audio": str(tmp_path / "you.wav"),
    }


def test_an_audio_entry_that_is_added_is_what_auto_chooses_unless_said(env, manifest_of):
    env(AUDIO_MODEL_ID="voice", AUDIO_MODEL_PATH="org/voice")

    assert manifest_of(MANIFEST).entries["voice"].identity.backend == "mlx-audio-plus"


def test_the_environment_alone_is_a_manifest(env, manifest_of):
    env(CHAT_MODEL_PATH="demo")

    assert list(manifest_of(None).entries) == ["local-chat"]


USUAL = [(kind.variables.entry_id, kind.name) for kind in KINDS.values() if kind.variables is not None]
"""The entries of a server without a file that answers with echo: one of each kind."""


def test_echo_mode_alone_is_a_manifest_of_all_kinds(env, manifest_of):
    env(ECHO_MODE="1")

    manifest = manifest_of(None)

    assert manifest.echo
    assert {("local-chat", "chat"), ("local-audio", "speech")} < set(USUAL)
    assert [(entry.id, entry.kind.name) for entry in manifest.entries.values()] == USUAL


def test_the_profile_echo_alone_is_a_manifest_too(manifest_of):
    assert list(manifest_of(None, "echo: true").entries) == [name for name, _ in USUAL]


def test_an_id_alone_names_the_entry_that_echo_mode_adds(env, manifest_of):
    env(ECHO_MODE="on", CHAT_MODEL_ID="mine")

    assert list(manifest_of(None).entries) == ["mine", *(name for name, kind in USUAL if kind != "chat")]


def test_echo_mode_off_wins_over_the_file(env, manifest_of):
    env(ECHO_MODE="off")

    assert not manifest_of("echo: true\nchat: {a: {backend: echo}}").echo


def test_a_dotenv_file_is_the_environment_below_the_environment(env, write, manifest_of):
    write("CHAT_MODEL_PATH=org/dotenv\nMODEL_PATH=\nOTHER=1\nECHO_MODE=0\n", ".env")
    assert manifest_of(MANIFEST).entries["local-chat"].options.path == "org/dotenv"

    env(CHAT_MODEL_PATH="org/real")
    assert manifest_of(MANIFEST).entries["local-chat"].options.path == "org/real"


def test_a_relative_path_in_the_environment_starts_from_the_current_folder(env, write, folder, manifest_of):
    write("{}", "models/config.json")
    env(CHAT_MODEL_PATH="./models")

    assert manifest_of(MANIFEST).entries["local-chat"].options.path == str(folder / "models")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"CHAT_MODEL_ID": "mine"},
            "environment CHAT_MODEL_ID: chat.mine: there is no chat model 'mine'; "
            "set CHAT_MODEL_PATH to add it, or name an existing one",
        ),
        (
            {"AUDIO_MODEL_ID": "mine"},
            "environment AUDIO_MODEL_ID: speech.mine: there is no speech model 'mine'; "
            "set AUDIO_BACKEND or AUDIO_MODEL_PATH to add it, or name an existing one",
        ),
        (
            {"AUDIO_BACKEND": "say"},
            "environment AUDIO_BACKEND: speech.local-audio.backend: unknown backend 'say' "
            f"(known: {', '.join(SPEECH.backends)})",
        ),
        (
            {"AUDIO_BACKEND": "macos-say", "AUDIO_MODEL_PATH": "x"},
            "environment AUDIO_MODEL_PATH: speech.local-audio.path: the backend 'macos-say' has no option "
            "'path'; backends with it: auto, piper, mlx-audio, mlx-audio-plus, command",
        ),
        (
            {"ECHO_MODE": "perhaps"},
            "environment ECHO_MODE: should be 1, true, yes, on, 0, false, no or off; found 'perhaps'",
        ),
        (
            {"CHAT_MODEL_ID": "tts-1", "CHAT_MODEL_PATH": "demo"},
            "models.yaml:5:42: speech.local-audio.aliases.0: the name 'tts-1' is already taken by chat.tts-1 "
            "at environment CHAT_MODEL_PATH; choose another",
        ),
    ],
)
def test_a_wrong_variable_is_named(variables, expected, env, problems_of):
    env(**variables)

    assert problems_of(MANIFEST) == [expected]


def test_a_dotenv_file_that_is_no_text_is_a_problem(folder):
    (folder / ".env").write_bytes(b"A=\xff\xfe")

    with pytest.raises(ManifestError, match=r"^\.env: cannot be read: "):
        Overrides.read()
