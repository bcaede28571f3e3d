"""The options of a model on another server: what is refused in the manifest, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.backends.openai import OpenAI
from localapi.errors import ManifestError, UpstreamRefused
from localapi.manifest import ManifestSource, read
from localapi.manifest.description import describe

pytestmark = pytest.mark.everyday

SECRET = "sk-live-1234567890abcdef"

WRONG = {
    "url: localhost:8000": "http://",
    "url: ws://localhost": "http://",
    'url: ""': "http://",
    "url: http://a:99999": "port",
    "url: http://::1:8000": "http://[::1]:8000",
    f"url: http://me:{SECRET}@a": "password",
    "url: http://a/v1?x=1": "?",
    f"url: http://a\n    key: {SECRET}": "env",
    f"url: http://a\n    key: {{env: {SECRET}}}": "variable",
    "url: http://a\n    key: {file: ./gone}": "gone",
    "url: http://a\n    ca: ./gone.pem": "gone.pem",
    f"url: http://a\n    headers: {{Authorization: {SECRET}}}": "key",
    f"url: http://a\n    headers: {{'X Y': {SECRET}}}": "X-Team",
    f"url: http://a\n    headers: {{X: [{SECRET}]}}": "text",
    "url: http://a\n    idle_seconds: 0": "0",
}


@pytest.mark.parametrize("options", WRONG)
def test_a_wrong_option_is_explained_with_its_line_and_without_secrets(tmp_path: Path, options: str) -> None:
    manifest = tmp_path / "models.yaml"
    manifest.write_text(f"chat:\n  cloud:\n    backend: openai\n    {options}\n")
    with pytest.raises(ManifestError) as raised:
        read(ManifestSource(manifest))
    (problem,) = raised.value.problems
    assert problem.line == 4 + options.count("\n")
    assert WRONG[options] in problem.message
    assert problem.message.count("should") <= 1
    assert SECRET not in f"{problem} {problem.excerpt}"


def test_another_key_in_the_file_is_another_upstream(tmp_path: Path) -> None:
    (tmp_path / "cloud.key").write_text(f"{SECRET}\n")
    manifest = tmp_path / "models.yaml"
    manifest.write_text(
        "chat:\n  cloud: {backend: openai, url: 'https://a', key: {file: ./cloud.key}, headers: {X-Key: s3cret}}\n"
    )
    before = read(ManifestSource(manifest)).entries["cloud"]
    assert isinstance(before.options, OpenAI)
    upstream = before.options.upstream("cloud")
    assert (upstream.key, dict(upstream.headers)) == (SECRET, {"X-Key": "s3cret"})
    assert tmp_path / "cloud.key" in before.options.files()
    (tmp_path / "cloud.key").write_text("another")
    after = read(ManifestSource(manifest)).entries["cloud"]
    assert before.identity != after.identity
    assert not {row.value for row in describe(read(ManifestSource(manifest)))} & {"s3cret", SECRET, "another"}


def test_a_variable_that_is_not_set_fails_the_load_and_not_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALAPI_TEST_CLOUD_KEY", raising=False)
    key = {"env": "LOCALAPI_TEST_CLOUD_KEY"}
    options = OpenAI.model_validate({"backend": "openai", "url": "https://a", "key": key})
    with pytest.raises(UpstreamRefused, match="LOCALAPI_TEST_CLOUD_KEY"):
        options.upstream("cloud")
