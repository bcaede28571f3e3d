"""Whatever a file holds, it is a manifest or a ManifestError, and never anything else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from localapi.errors import ManifestError
from localapi.manifest import Manifest, ManifestSource, describe, fingerprint, read, yaml_layer

VALID = (
    (Path(__file__).parents[2] / "models.yaml").read_text()
    + """
server: {drain_seconds: 1.5, keep_alive: forever, log_level: "debug"}
"""
)
PROFILE = """
chat:
  local-chat: &a {path: org/name, defaults: {stop: [x, 'y'], seed: -3}}
  demo: ~
  more: {<<: *a, backend: mlx-lm}
"""
PIECES = [
    *":-?[]{},#&*!|>'\"%@`~\t\n\r \\", "\n  ", "\n    ", "<<: *a", "&a ", "*a", "!!int ", "---\n", "...\n", "? ",
    "%YAML 1.3\n", "null", "true", "1.10", "1e999", ".nan", "-.inf", "9" * 5000, "[" * 60, "\\U0010FFFF", "\\xff",
    '"\\ud800"', '"\\UFFFFFFFF"', "\ufeff", "\x00", "\x85", "\u2028", "\ud7ff", "\U0001f600", "chat:", "speech:",
    "echo: true", "backend: echo", "backend: mlx-lm", "aliases: [[a]]", "voices: {1: 2}", "path: ~x/y",
    "path: " + "x" * 300, "path: ./" + "x" * 300,
]  # fmt: skip
PARSERS = [loader for name in ("CSafeLoader", "SafeLoader") if (loader := getattr(yaml, name, None))]

anything = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(params=PARSERS, ids=lambda loader: loader.__name__, autouse=True)
def parser(request, monkeypatch):
    """libyaml, and PyYAML's own parser for where that is missing."""
    monkeypatch.setattr(yaml_layer, "_LOADER", request.param)


@st.composite
def mutations(draw, text: str) -> str:
    """The text with a few pieces removed, replaced or put in."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 20)))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=5)) + text[end:]
    return text


def attempt(folder: Path, data: bytes, profile: bytes = b"{}") -> Manifest | None:
    (folder / "models.yaml").write_bytes(data)
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs/p.yaml").write_bytes(profile)
    with contextlib.suppress(ManifestError):
        manifest = read(ManifestSource(folder / "models.yaml", "p"))
        assert describe(manifest)
        for entry in manifest.entries.values():
            assert fingerprint(entry.identity)
            assert fingerprint(entry.settings)
        return manifest
    return None


@anything
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(data=b"%YAML " + b"9" * 5000 + b".1\n---\na: 1")
@example(data=b'"\\UFFFFFFFF": 1')
@example(data=b"\xef\xbb\xbf\xef\xbb\xbf{}")
@example(data=b"\xff\xfe{\x00}\x00")
@example(data=b"? {a: [b]}\n: *x")
def test_any_bytes_are_a_manifest_or_a_manifest_error(folder, data):
    attempt(folder, data)


@anything
@given(text=st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_pieces_of_yaml_are_a_manifest_or_a_manifest_error(folder, text):
    attempt(folder, text.encode("utf-8", "surrogatepass"))


@anything
@given(text=mutations(VALID), profile=mutations(PROFILE))
def test_any_mutation_of_a_manifest_is_a_manifest_or_a_manifest_error(folder, text, profile):
    attempt(folder, text.encode("utf-8", "surrogatepass"), profile.encode("utf-8", "surrogatepass"))


OPTIONS = """
    chat speech server echo backend path aliases description defaults preload keep_alive swap voices temperature stop
    seed revision context_length max_batch mlx-lm auto piper drain_seconds log_level
"""
keys = st.sampled_from(OPTIONS.split())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@anything
@given(manifest=st.dictionaries(keys, values, max_size=5), entry=st.dictionaries(keys, values, max_size=6))
def test_any_values_are_a_manifest_or_a_manifest_error(folder, manifest, entry):
    for section, backend in (("chat", "mlx-lm"), ("speech", "auto")):
        document = {**manifest, section: {"a": {"path": "demo", **entry, "backend": backend}}}
        attempt(folder, yaml.safe_dump(document).encode())


def test_what_the_mutations_begin_with_is_valid(folder):
    assert attempt(folder, VALID.encode(), PROFILE.encode())
