"""Members of pools that cannot be: each an error with its place in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.errors import ManifestError
from localapi.manifest import ManifestSource, read
from tests.server import save


@pytest.mark.parametrize(
    ("pool", "column", "fact"),
    [
        ("of: []", 29, "not empty"),
        ("of: [nobody]", 30, "nobody"),
        ("of: [one, other]", 35, "a pool"),
        ("of: [pool]", 30, "itself"),
        ("of: [one, tone]", 35, "speech"),
        ("of: [one, uno]", 35, "already"),
        ("of: [one], pin: true", 36, "members"),
    ],
)
def test_a_wrong_member_is_an_error_with_its_place(tmp_path: Path, pool: str, column: int, fact: str) -> None:
    save(
        tmp_path / "models.yaml",
        "chat:\n  one: {backend: echo, aliases: [uno]}\n  other: {backend: pool, of: [one]}\n"
        f"  pool: {{backend: pool, {pool}}}\nspeech:\n  tone: {{backend: echo}}\n",
    )
    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(tmp_path / "models.yaml"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (4, column)
    assert fact in problem.message


def test_echo_mode_takes_the_place_of_a_pool_too(tmp_path: Path) -> None:
    save(
        tmp_path / "models.yaml",
        "echo: true\nchat: {one: {backend: echo}, both: {backend: pool, of: [one], aliases: [x]}}\n",
    )
    entry = read(ManifestSource(tmp_path / "models.yaml")).entries["both"]
    assert (entry.options.backend_name, entry.options.aliases) == ("echo", ["x"])
