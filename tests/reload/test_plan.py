"""Places of models in `localapi plan`."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.manifest import ManifestSource, read
from localapi.reload.plan import place_of

pytestmark = pytest.mark.everyday

UPSTREAM = "backend: openai, url: 'http://me:8001/v1'"
PROGRAM = "backend: command, command: [serve, --port, '{port}']"


@pytest.mark.parametrize(
    ("entry", "fact"),
    [
        ("backend: echo", ""),
        (UPSTREAM, "me:8001"),
        (PROGRAM, "serve"),
        ("backend: pool, of: [other]", "other"),
        ("backend: mlx-lm, path: demo", ""),
        ("backend: mlx-lm, path: demo, replicas: {min: 1, max: 3}", "1 to 3"),
        ("backend: mlx-lm, path: demo, shards: 2", "2 processes"),
        ("backend: mlx-lm, path: demo, place: {}", "cluster"),
    ],
)
def test_a_place_other_than_one_process_here_is_named(tmp_path: Path, entry: str, fact: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(f"server: {{cluster: {{ray: auto}}}}\nchat: {{it: {{{entry}}}, other: {{backend: echo}}}}\n")
    place = place_of(read(ManifestSource(file)).entries["it"])
    assert fact in place
    assert bool(place) is bool(fact)
