"""`--json`: what scripts read, and nothing else on standard output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests import forked
from tests.server import save

ROOT = Path(__file__).parents[2]


def told(folder: Path, *arguments: str, status: int = 0) -> Any:
    done = forked.run_text(
        *arguments, "--json", folder=folder, env={**os.environ, "LOCALAPI_ENVIRONMENTS": str(folder)}
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_check_tells_each_value_with_its_place(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat:\n  bird:\n    backend: echo\n")
    found = told(tmp_path, "check", "--port", "1")
    assert found["valid"] is True
    assert {"key": "chat.bird.backend", "value": "echo", "said_by": "models.yaml:3:14"} in found["values"]
    assert "no server is running" in found["server"]


def test_check_tells_each_problem_with_its_place(tmp_path: Path) -> None:
    save(tmp_path / "models.yaml", "chat:\n  bird: {backend: eko}\n")
    found = told(tmp_path, "check", status=1)
    assert found["valid"] is False
    [problem] = found["problems"]
    assert [problem[key] for key in ("source", "line", "column", "key")] == ["models.yaml", 2, 19, "chat.bird.backend"]


def test_install_lists_the_environments(tmp_path: Path) -> None:
    assert {(each["name"], each["installed"]) for each in told(tmp_path, "install")} == {
        ("faster-whisper", False), ("mlx-audio-plus", False), ("mlx-audio", False), ("mlx-vlm", False),
    }  # fmt: skip
