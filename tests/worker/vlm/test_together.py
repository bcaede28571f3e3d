"""Answers that are generated at once by models that see and hear: the same as those generated alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localapi.audio.encoder import encoded
from localapi.audio.formats import WAV
from localapi.environments import Environment
from tests.mlx_audio_models import INSTALL_SECONDS, ROOT

pytestmark = [pytest.mark.long, pytest.mark.timeout(INSTALL_SECONDS)]

TONE = (np.sin(np.arange(16_000) / 9) * 12_000).astype(np.int16).tobytes()


@pytest.mark.parametrize("sense", ["vision", "positions", "hearing"])
def test_answers_at_once_are_those_given_alone_and_those_of_mlx_vlm_itself(
    environment: Environment, tiny_model: Callable[[str], Path], tmp_path: Path, sense: str
) -> None:
    recording = tmp_path / "tone.wav"
    recording.write_bytes(encoded(TONE, WAV, 16_000))
    heard = [recording] if sense == "hearing" else []
    model = tiny_model(sense)

    def answers(how: str) -> Any:
        command = [environment.interpreter, Path(__file__).with_name("together.py"), ROOT, model, how, *heard]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found, lone = answers("batch"), answers("lone")
    assert (found["batched"], lone["batched"]) == (True, False)
    assert found["most"] >= 3
    assert found["together"] == found["alone"]
    assert len({json.dumps(said) for said in found["alone"]}) == len(found["alone"])
    assert lone["together"] == lone["alone"] == found["alone"]
