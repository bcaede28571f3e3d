"""`localapi add` and `localapi rm`, as a person runs them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from localapi.errors import CannotEdit
from localapi.manifest import ManifestSource, adding, removing
from tests.cli.conftest import Run
from tests.fake_hub import hub_with
from tests.piper_voice import make_voice
from tests.server import serving

NO_HUB = "http://127.0.0.1:1"
"""Nobody answers, and says so at once; a name that is not found takes half a minute."""
MANIFEST = """\
# mine
chat:
  bird: {backend: echo, aliases: [gpt-4o]}   # says what it hears
"""


@pytest.fixture
def manifest(folder: Path) -> Path:
    path = folder / "models.yaml"
    path.write_text(MANIFEST)
    return path


def model(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_a_folder_is_for_is_found_out_from_its_files(localapi: Run, folder: Path) -> None:
    model(folder / "models" / "My Chat 4bit", model_type="qwen3", architectures=["Qwen3ForCausalLM"])
    model(folder / "speaks", model_type="soprano")
    (folder / "voices").mkdir()
    make_voice(folder / "voices" / "amy.onnx")
    for name in ("models/My Chat 4bit", "speaks", "voices/amy.onnx", "demo"):
        done = localapi("add", name)
        assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "models.yaml").read_text() == (
        'chat:\n  my-chat-4bit:\n    backend: mlx-lm\n    path: "./models/My Chat 4bit"\n'
        "  demo:\n    backend: mlx-lm\n    path: demo\n\n"
        "speech:\n  speaks:\n    backend: mlx-audio-plus\n    path: ./speaks\n"
        "  amy:\n    backend: piper\n    path: ./voices/amy.onnx\n"
    )


def test_a_read_only_file_is_left_alone(localapi: Run, manifest: Path) -> None:
    manifest.chmod(0o444)
    for command in (("add", "demo"), ("rm", "bird")):
        done = localapi(*command)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1
        assert line.startswith("localapi: models.yaml is read-only")
        assert line.endswith("chmod u+w models.yaml")
    assert manifest.read_text() == MANIFEST


@pytest.mark.parametrize("text", ["", "# later\n"])
def test_a_file_without_anything_in_it_gets_its_first_entry(text: str, localapi: Run, folder: Path) -> None:
    (folder / "models.yaml").write_text(text)
    done = localapi("add", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "models.yaml").read_text() == f"{text}chat:\n  demo:\n    backend: mlx-lm\n    path: demo\n"


@pytest.mark.parametrize("command", [("check",), ("plan",), ("serve",), ("rm", "bird"), ("pull",)])
def test_a_manifest_that_is_not_there_is_one_line(command: tuple[str, ...], localapi: Run) -> None:
    done = localapi(*command)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("models.yaml: does not exist")


def test_the_voice_of_the_system_gets_a_name_that_says_what_it_is(localapi: Run, folder: Path) -> None:
    assert localapi("add", "--backend", "auto", "--kind", "speech").returncode == 0
    assert (folder / "models.yaml").read_text() == "speech:\n  voice:\n    backend: auto\n"


def test_settings_and_aliases_are_written_as_a_person_would(localapi: Run, manifest: Path) -> None:
    settings = ("pin=true", "keep_alive=1h", "defaults.temperature=0.7", "defaults.stop=[END]", "description='a: b'")
    arguments = [word for setting in settings for word in ("--set", setting)]
    done = localapi("add", "--backend", "echo", "--id", "two", "--alias", "x", "--alias", "y z", *arguments)
    assert (done.returncode, done.stdout) == (0, "models.yaml: added chat.two (echo)\n")
    assert manifest.read_text() == MANIFEST + (
        '  two:\n    backend: echo\n    aliases: [x, "y z"]\n    pin: true\n    keep_alive: 1h\n'
        '    defaults: {temperature: 0.7, stop: [END]}\n    description: "a: b"\n'
    )


def test_the_same_model_twice_gets_another_id_and_a_word_of_that(localapi: Run, folder: Path) -> None:
    first, second = (localapi("add", "me/Some_Model", "--kind", "chat") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.endswith("(mlx-lm), in a new file\n")
    assert ("some_model uses the same model" in first.stderr, "some_model uses the same model" in second.stderr) == (
        False,
        True,
    )
    assert localapi("rm", "nothing").stderr.endswith("it has: some_model, some_model-2\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("demo", "--set", "bogus=1"), "models.yaml:7:5: chat.demo.bogus: unknown key 'bogus'"),
        (("demo", "--set", "swap=hot"), "models.yaml:7:11: chat.demo.swap: should be 'warm' or 'cold'; found"),
        (("demo", "--id", "bird"), "an entry chat.bird"),
        (("demo", "--alias", "gpt-4o"), "the name 'gpt-4o' is already taken by chat.bird.aliases.0"),
        (("demo", "--set", "description=a: b"), "--set description: 'a: b' is not a YAML value"),
        (("./nope",), "nope does not exist"),
        (("~nobody-of-this-name/nope",), "~nobody-of-this-name/nope does not exist"),
        (("x" * 300,), "xxx' is neither a folder"),
        (("what",), "'what' is neither a folder"),
        (("echo",), "'echo' is a backend, not a model; give --backend echo"),
        (("demo", "--backend", "eko"), "there is no backend 'eko'; available: "),
        (("demo", "--backend", "piper", "--kind", "chat"), "the backend piper is for speech, not for chat"),
        ((), "nothing to add"),
        (("me/model",), "me/model is not on this machine and cannot be downloaded from Hugging Face"),
    ],
)  # fmt: skip
def test_a_mistake_changes_nothing_and_is_told(
    arguments: tuple[str, ...], says: str, localapi: Run, manifest: Path
) -> None:
    done = localapi("add", *arguments, HF_ENDPOINT=NO_HUB)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert ("models.yaml was not changed" in done.stderr) == (
        says.startswith("models.yaml:") or "already taken" in says
    )
    assert manifest.read_text() == MANIFEST
    assert [file.name for file in manifest.parent.iterdir()] == ["models.yaml"]


def test_without_the_hub_there_is_one_clear_line_and_a_kind_is_enough(localapi: Run, manifest: Path) -> None:
    (line,) = localapi("add", "me/model", HF_ENDPOINT=NO_HUB).stderr.splitlines()
    assert "give --kind chat or --kind speech" in line
    assert line.endswith(", or --backend.")
    assert localapi("add", "me/model", "--backend", "mlx-lm").returncode == 0
    assert localapi("add", "me/voice", "--kind", "speech").returncode == 0
    assert "  voice:\n    backend: auto\n    path: me/voice\n" in manifest.read_text()


def test_a_repository_tells_what_it_is_for(localapi: Run, folder: Path, tmp_path: Path) -> None:
    repositories = {
        "me/chat": model(tmp_path / "a", model_type="llama"),
        "me/kokoro": model(tmp_path / "b", model_type="kokoro"),
        "me/pictures": model(tmp_path / "c", model_type="vit"),
    }
    with hub_with(repositories) as hub:
        localapi("add", "demo")
        added = [localapi("add", name, HF_ENDPOINT=hub.url).stdout for name in ("me/chat", "me/kokoro")]
        refused = localapi("add", "me/pictures", HF_ENDPOINT=hub.url)
    assert [line.split(" added ")[1] for line in added] == ["chat.chat (mlx-lm)\n", "speech.kokoro (mlx-audio)\n"]
    assert "the kind of the model me/pictures is unknown; give --kind chat" in refused.stderr


def test_a_dry_run_shows_the_diff_and_writes_nothing(localapi: Run, manifest: Path) -> None:
    done = localapi("add", "demo", "--dry-run")
    assert done.stdout.splitlines()[2:] == [
        "@@ -1,3 +1,6 @@", *(f" {line}" for line in MANIFEST.splitlines()),
        "+  demo:", "+    backend: mlx-lm", "+    path: demo",
    ]  # fmt: skip
    assert "-  bird: {backend: echo, aliases: [gpt-4o]}   # says" in localapi("rm", "bird", "--dry-run").stdout
    assert manifest.read_text() == MANIFEST


def test_links_and_modes_stay(localapi: Run, folder: Path, manifest: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.yaml"
    manifest.rename(target)
    target.chmod(0o640)
    manifest.symlink_to(target)
    assert localapi("add", "demo").returncode == 0
    assert manifest.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert "path: demo" in target.read_text()


def test_a_file_that_somebody_changed_meanwhile_is_left_alone(manifest: Path) -> None:
    edit = adding(ManifestSource(manifest), "chat", "new", {"backend": "echo"})
    manifest.write_text(MANIFEST + "  other: {backend: echo}\n")
    with pytest.raises(CannotEdit, match="has changed"):
        edit.save()
    assert manifest.read_text() == MANIFEST + "  other: {backend: echo}\n"
    assert os.listdir(manifest.parent) == ["models.yaml"]


def test_the_secrets_of_keys_may_be_known_to_the_server_alone(localapi: Run, manifest: Path) -> None:
    before = f"server: {{api_keys: {{me: {{env: ELSEWHERE}}}}}}\n{MANIFEST}"
    manifest.write_text(before)
    assert localapi("add", "--backend", "echo").returncode == 0
    assert localapi("rm", "echo").returncode == 0
    assert manifest.read_text() == before


def test_a_dry_run_takes_the_line_ends_of_diff(manifest: Path) -> None:
    manifest.write_bytes(MANIFEST.replace("# mine", "# mine\u2028# and yours").encode())
    told = adding(ManifestSource(manifest), "chat", "new", {"backend": "echo"}).diff()
    assert " # mine\u2028# and yours\n" in told
    assert "No newline" not in told


def test_a_mark_at_the_beginning_and_line_ends_stay(manifest: Path) -> None:
    before = b"\xef\xbb\xbf" + MANIFEST.replace("\n", "\r\n").encode()
    manifest.write_bytes(before)
    adding(ManifestSource(manifest), "chat", "new", {"backend": "echo"}).save()
    assert manifest.read_bytes() == before + b"  new:\r\n    backend: echo\r\n"
    removing(ManifestSource(manifest), "new").save()
    assert manifest.read_bytes() == before


def test_what_cannot_be_removed_is_told_with_what_can(localapi: Run, folder: Path, manifest: Path) -> None:
    (folder / "configs").mkdir()
    (folder / "configs" / "more.yaml").write_text("chat: {extra: {backend: echo}}\n")
    assert "has no entry 'nope'; it has: bird" in localapi("rm", "nope").stderr
    assert "has no entry 'gpt-4o' (it is an alias of 'bird'); it has: bird" in localapi("rm", "gpt-4o").stderr
    assert "(it comes from configs/more.yaml:1:" in localapi("rm", "extra", "--profile", "more").stderr
    assert localapi("rm", "bird").stdout == "models.yaml: removed bird\n"
    assert manifest.read_text() == "# mine\nchat:\n"


def test_a_running_server_follows_and_what_it_did_is_told(localapi: Run, folder: Path, tmp_path: Path) -> None:
    with serving(folder, MANIFEST) as server:
        port = str(server.port)
        added = localapi("add", "--backend", "echo", "--id", "two", PORT=port)
        assert added.stdout.splitlines()[1] == (
            f"the server on {server.url} has applied it: revision 2, two is unloaded: its first request loads it"
        )
        assert server.model("two")["backend"] == "echo"
        removed = localapi("rm", "bird", PORT=port)
        assert removed.stdout.splitlines()[1].endswith("revision 3, bird is removed")
        (folder / "other.yaml").write_text(MANIFEST)
        other = localapi("add", "--backend", "echo", "--manifest", "other.yaml", PORT=port)
        assert other.stderr == (
            f"the server on {server.url} follows {folder / 'models.yaml'}, not {folder / 'other.yaml'}\n"
        )
        assert [each["id"] for each in server.status()["models"]] == ["two"]


def test_what_a_server_follows_that_tells_nothing_without_a_key_is_not_known(localapi: Run, folder: Path) -> None:
    keys = "server: {api_keys: {me: {env: MY_KEY}}}\n"
    with serving(folder, keys + MANIFEST, env={"MY_KEY": "open-sesame-open-sesame"}) as server:
        added = localapi("add", "--backend", "echo", PORT=str(server.port), MY_KEY="open-sesame-open-sesame")
    assert added.returncode == 0
    assert f"cannot tell whether the server on {server.url}" in added.stdout
    assert "LOCALAPI_API_KEY" in added.stdout


def test_a_running_server_that_refuses_the_file_is_told_with_the_place(localapi: Run, folder: Path) -> None:
    with serving(folder, MANIFEST) as server:
        (folder / "models.yaml").write_text(f"server: {{api_keys: {{me: {{env: ELSEWHERE}}}}}}\n{MANIFEST}")
        added = localapi("add", "--backend", "echo", PORT=str(server.port))
        assert added.returncode == 1
        assert added.stderr.startswith(f"localapi: the server on {server.url} rejects it: models.yaml:1:")
        assert "server.api_keys.me.env: " in added.stderr
