"""Memory of an entry beyond its files, before it is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from localapi.backends.mlx_lm import MlxLm
from localapi.runtime.memory import expected_bytes

pytestmark = pytest.mark.everyday

WEIGHTS = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(bytes(WEIGHTS))
    (tmp_path / "config.json").write_text(json.dumps({"quantization": {"bits": 4, "group_size": 64}}))
    return tmp_path


def entry(folder: Path, **options: str) -> MlxLm:
    return MlxLm.model_validate({"backend": "mlx-lm", "path": str(folder), **options})


def test_weights_stay_as_they_are_stored_within_a_bound_unless_the_entry_says_otherwise(folder: Path) -> None:
    said = {how: entry(folder, cpu_weights=how).in_bounds().cpu_weights for how in ("auto", "float32", "stored")}
    assert said == {"auto": "stored", "float32": "float32", "stored": "stored"}


@pytest.mark.skipif(sys.platform != "linux", reason="weights stay as they are on a GPU")
@pytest.mark.parametrize(
    ("config", "how", "times"),
    [
        ({"quantization": {"bits": 4}}, "auto", 1),
        ({"quantization": {"bits": 4}}, "stored", 1),
        ({"quantization": {"bits": 4}}, "float32", 8),
        ({"quantization": {"bits": 8}}, "float32", 4),
        ({}, "float32", 2),
        ({"quantization": "none"}, "float32", 2),
    ],
)
def test_float32_that_was_asked_for_is_reckoned_with(
    folder: Path, config: dict[str, object], how: str, times: int
) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    taken = expected_bytes(entry(folder, cpu_weights=how)) - MlxLm.worker_bytes
    assert taken == pytest.approx(1.2 * times * WEIGHTS, rel=0.01)
