"""Whether a model fits, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localapi.backends.options import EntryOptions
from localapi.kinds import KINDS
from localapi.kinds.first_models import first_models
from localapi.reload.fit import need_of, obstacle_of, shortage_of
from localapi.system.memory import total_bytes

pytestmark = pytest.mark.everyday


def options(path: str, backend: str = "mlx-lm") -> EntryOptions:
    return KINDS["chat"].backends[backend](backend=backend, **({"path": path} if path else {}))  # type: ignore[call-arg]


def entry(obstacle: str | None = None) -> Any:
    return SimpleNamespace(options=SimpleNamespace(obstacle=lambda: obstacle))


def test_a_model_that_is_not_downloaded_needs_what_the_list_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    listed = first_models()[0]
    assert need_of(options(listed.repository)) == listed.memory_bytes
    assert need_of(options("org/unknown")) is None
    assert need_of(options("", "echo")) is None


@pytest.mark.parametrize(
    ("need", "budget", "words"),
    [
        (None, 1, None),
        (10, None, None),
        (10, 10, None),
        (11, 10, "memory_budget"),
        (total_bytes() + 1, None, "this machine"),
    ],
)
def test_more_than_the_budget_or_the_machine_is_an_obstacle(need: int | None, budget: int | None, words: str) -> None:
    found = obstacle_of(entry(), need, budget)
    assert (found is None) is (words is None)
    assert words is None or words in str(found)


def test_an_obstacle_of_the_backend_comes_first() -> None:
    assert obstacle_of(entry("not here"), 11, 10) == "not here"


def test_more_than_is_free_is_a_note() -> None:
    assert shortage_of(None) is shortage_of(1) is None
    assert "free now" in str(shortage_of(total_bytes() * 2))
