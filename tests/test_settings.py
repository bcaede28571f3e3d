"""Flags over the environment over `.env` over what is usual."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.errors import StartError
from localapi.settings import Settings

pytestmark = pytest.mark.everyday

VARIABLES = (
    "HOST", "PORT", "LOCALAPI_MANIFEST", "LOCALAPI_PROFILE", "LOG_LEVEL", "MANIFEST", "PROFILE", "LOG_FORMAT",
    "LOCALAPI_API_KEY",
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_flags_and_environment_everything_is_as_usual():
    settings = Settings.read()

    assert (settings.host, settings.port, settings.manifest, settings.profile, settings.log_level) == (
        "127.0.0.1",
        8000,
        None,
        None,
        None,
    )


def test_flags_win_over_the_environment_and_the_environment_over_dotenv(folder, monkeypatch):
    (folder / ".env").write_text("HOST=from-dotenv\nPORT=1\nLOCALAPI_PROFILE=from-dotenv\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("LOCALAPI_PROFILE", "from-environment")

    settings = Settings.read(profile="from-flag", port=None)

    assert (settings.host, settings.port, settings.profile) == ("from-dotenv", 2, "from-flag")


def test_the_environment_says_everything_that_flags_do(monkeypatch):
    for name, value in zip(VARIABLES, ["::1", "0", "m.yaml", "dev", "DEBUG"], strict=False):
        monkeypatch.setenv(name, value)

    settings = Settings.read()

    assert (settings.host, settings.port, settings.manifest, settings.profile, settings.log_level) == (
        "::1",
        0,
        Path("m.yaml"),
        "dev",
        "debug",
    )


def test_a_blank_variable_is_not_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, " ")

    assert Settings.read() == Settings.model_construct()


def test_variables_without_our_prefix_do_not_name_the_manifest(monkeypatch):
    monkeypatch.setenv("MANIFEST", "other.yaml")
    monkeypatch.setenv("PROFILE", "other")

    assert (Settings.read().manifest, Settings.read().profile) == (None, None)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PORT", "http", "the environment variable PORT should be a whole number from 0 to 65535; found 'http'"),
        ("PORT", "65536", "the environment variable PORT should be a whole number from 0 to 65535; found '65536'"),
        (
            "LOG_LEVEL",
            "loud",
            "the environment variable LOG_LEVEL should be debug, info, warning or error; found 'loud'",
        ),
    ],
)
def test_a_bad_variable_is_named(variable, value, expected, monkeypatch):
    monkeypatch.setenv(variable, value)

    with pytest.raises(StartError) as caught:
        Settings.read()

    assert str(caught.value) == expected


def test_a_bad_flag_is_named_and_a_good_flag_hides_a_bad_variable(monkeypatch):
    monkeypatch.setenv("PORT", "http")

    assert Settings.read(port=1).port == 1
    with pytest.raises(StartError, match=r"^--port should be a whole number from 0 to 65535; found 70000$"):
        Settings.read(port=70000)


def test_the_form_of_the_log_is_text_or_json(monkeypatch):
    assert Settings.read().log_format == "text"
    monkeypatch.setenv("LOG_FORMAT", "JSON")
    assert Settings.read().log_format == "json"
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(StartError, match="LOG_FORMAT should be text or json"):
        Settings.read()


def test_a_key_is_not_shown(monkeypatch):
    monkeypatch.setenv("LOCALAPI_API_KEY", "sk-do-not-show")

    assert "sk-do-not-show" not in repr(Settings.read())


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Settings.read().port = 1
