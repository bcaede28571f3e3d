"""Peers in the manifest, and names that belong to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.errors import ManifestError
from localapi.manifest import Entry, ManifestSource, describe, read
from tests.manifest.conftest import Read, Write
from tests.server import save

pytestmark = pytest.mark.everyday

PEERS = 'peers:\n  studio: {url: "http://studio.local:8000"}\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "fact"),
    [
        ('peers: {studio: {url: "studio:8000"}}', 1, "peers.studio.url", "http://"),
        ("peers: {studio: {}}", 1, "peers.studio.url", "missing"),
        ('peers: {a/b: {url: "http://a"}}', 1, "peers.a/b", "without /"),
        ('peers: {a: {url: "http://a", key: {file: ./no.key}}}', 1, "peers.a.key.file", "does not exist"),
        ('peers: {a: {url: "http://a", modell: x}}', 1, "peers.a.modell", "unknown key"),
        (f"{PEERS}chat: {{studio/demo: {{backend: echo}}}}", 3, "chat.studio/demo", "peer"),
        (f"{PEERS}chat: {{demo: {{backend: echo, aliases: [studio/x]}}}}", 3, "chat.demo.aliases.0", "peer"),
        (f"{PEERS}chat: {{all: {{backend: pool, of: [laptop/demo]}}}}", 3, "chat.all.of.0", "laptop/demo"),
    ],
)
def test_a_mistake_is_an_error_with_its_place(tmp_path: Path, text: str, line: int, key: str, fact: str) -> None:
    save(tmp_path / "models.yaml", text)
    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(tmp_path / "models.yaml"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (line, key)
    assert fact in problem.message


def test_names_of_a_peers_models_are_accepted_before_they_are_known(manifest_of: Read, write: Write) -> None:
    write("0123456789-0123456789", "a.key")
    text = (
        f"{PEERS}server: {{api_keys: {{a: {{file: a.key, models: [studio/demo, studio/*]}}}}}}\n"
        "chat: {all: {backend: pool, of: [studio/demo]}, studio: {backend: echo}}"
    )
    assert list(manifest_of(text).entries) == ["all", "studio"]


def test_entries_of_peers_come_and_go_beside_those_of_the_file(manifest_of: Read) -> None:
    manifest = manifest_of(f"{PEERS}chat: {{own: {{backend: echo}}}}")
    options = manifest.entries["own"].options
    offered = Entry("studio/demo", options, options.identity(), 0, peer="studio")
    more = manifest.with_peers([offered])
    assert list(more.entries) == ["own", "studio/demo"]
    assert more.with_peers([offered]) is more
    assert more.with_peers([]) == manifest


def test_headers_are_not_shown(manifest_of: Read) -> None:
    manifest = manifest_of('peers: {a: {url: "http://a", headers: {X-Token: a-very-secret-value}}}')
    rows = {row.key: row.value for row in describe(manifest)}
    assert rows["peers.a.url"] == "http://a"
    assert "secret" not in "".join(rows.values())
