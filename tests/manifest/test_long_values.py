"""Long values are blamed where they stand, and not repeated: a recording in base64, a list where a path belongs."""

from __future__ import annotations

import base64

import pytest

pytestmark = pytest.mark.everyday

LONG = base64.b64encode(b"RIFF\0\0\0\0WAVE" + bytes(range(256)) * 300).decode()[:100_000]
FIELDS = {
    "speech.a.defaults.ref_audio": "speech: {a: {backend: echo, defaults: {ref_audio: VALUE}}}",
    "speech.a.defaults.source_audio": "speech: {a: {backend: echo, defaults: {voice: x, source_audio: VALUE}}}",
    "speech.a.voices.me.ref_audio": "speech: {a: {backend: echo, voices: {me: {ref_audio: VALUE}}}}",
    "speech.a.lexicon_file": "speech: {a: {backend: echo, lexicon_file: VALUE}}",
    "speech.a.audio_folders.1": "speech: {a: {backend: echo, audio_folders: [., VALUE]}}",
    "speech.a.path": "speech: {a: {backend: auto, path: VALUE}}",
    "speech.b.path": "speech: {b: {backend: piper, path: VALUE}}",
    "speech.c.path": "speech: {c: {backend: mlx-audio, path: VALUE}}",
    "speech.d.voice": "speech: {d: {backend: espeak-ng, voice: VALUE}}",
    "speech.d.backend": "speech: {d: {backend: VALUE}}",
    "chat.a.path": "chat: {a: {backend: mlx-lm, path: VALUE}}",
    "chat.a.adapter": "chat: {a: {backend: mlx-lm, path: demo, adapter: VALUE}}",
    "chat.a.swap": "chat: {a: {backend: echo, swap: VALUE}}",
    "server.log_level": "server: {log_level: VALUE}",
}
VARIABLES = {
    "AUDIO_REF_AUDIO": "speech.local-audio.defaults.ref_audio",
    "AUDIO_SOURCE_AUDIO": "speech.local-audio.defaults.source_audio",
    "AUDIO_BACKEND": "speech.local-audio.backend",
    "AUDIO_MODEL_PATH": "speech.local-audio.path",
    "CHAT_MODEL_PATH": "chat.local-chat.path",
}


def repeated(text: str) -> int:
    """Return the most characters of the long value that a text repeats in one place."""
    return max((length for length in range(1, 400) if LONG[:length] in text), default=0)


@pytest.mark.parametrize("key", FIELDS)
@pytest.mark.parametrize("value", [LONG, LONG[:300], f"./{LONG[:200]}/{LONG[:100]}/x", LONG.replace("A", " ")[:500]])
def test_a_long_value_is_blamed_where_it_stands_and_is_not_repeated(problems_of, key: str, value: str) -> None:
    (line,) = problems_of(FIELDS[key].replace("VALUE", f'"{value}"'))

    assert line.split(": ")[1] == key
    assert len(line) < 900
    assert repeated(line) <= 100


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_long_value_of_the_environment_is_blamed_on_its_variable(
    problems_of, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, LONG)
    defaults = {} if "BACKEND" in variable else {"AUDIO_BACKEND": "mlx-audio", "AUDIO_MODEL_PATH": "org/voice"}
    for name, value in defaults.items():
        monkeypatch.setenv(name, LONG if name == variable else value)

    (line,) = problems_of("speech: {local-audio: {backend: echo, defaults: {voice: x}}}\nchat: {}")

    assert line.startswith(f"environment {variable}: {VARIABLES[variable]}: ")
    assert len(line) < 900
    assert repeated(line) <= 100


def test_the_lines_around_a_problem_repeat_no_long_value(manifest_of) -> None:
    from localapi.errors import ManifestError  # noqa: PLC0415

    with pytest.raises(ManifestError) as caught:
        manifest_of(f"speech:\n  a:\n    backend: echo\n    defaults: {{ref_audio: {LONG}}}\n    swap: hot\n")

    shown = [line for problem in caught.value.problems if problem.excerpt for line in problem.excerpt.lines]
    assert shown
    assert max(map(repeated, shown)) <= 100


@pytest.mark.parametrize(
    "value", ["data:", "data:audio/wav;base64,", "data:audio/wav;base64,no!", "DATA:audio/wav,abc", "data:;base64,AAAA"]
)
@pytest.mark.parametrize("key", ["speech.a.defaults.ref_audio", "speech.a.voices.me.ref_audio"])
def test_a_data_url_without_sound_is_found_when_the_manifest_is_read(problems_of, key: str, value: str) -> None:
    (line,) = problems_of(FIELDS[key].replace("VALUE", f'"{value}"'))

    assert line.split(": ")[1] == key


def test_a_data_url_with_sound_is_taken_as_it_stands(manifest_of) -> None:
    url = f"data:audio/wav;base64,{LONG}"

    entry = manifest_of(FIELDS["speech.a.defaults.ref_audio"].replace("VALUE", f'"{url}"')).entries["a"]

    assert entry.options.defaults.ref_audio == url


def test_a_relative_recording_of_the_environment_starts_from_the_current_folder(
    manifest_of, write, folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("", "here.wav")
    write("speech: {local-audio: {backend: echo, defaults: {voice: x}}}", "elsewhere/models.yaml")
    monkeypatch.setenv("AUDIO_REF_AUDIO", "here.wav")
    from localapi.manifest import ManifestSource, Overrides, read  # noqa: PLC0415

    manifest = read(ManifestSource(folder / "elsewhere/models.yaml", overrides=Overrides.read()))

    assert manifest.entries["local-audio"].options.defaults.ref_audio == str(folder / "here.wav")
