"""Code that a model brings along does not run, even if a library would have it run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from localapi.worker.own_code import refuse_own_code


@pytest.mark.parametrize("known", [True, False], ids=["a class of transformers", "no class that there is"])
def test_a_tokenizer_is_made_without_the_code_beside_it(tiny_model: Path, tmp_path: Path, *, known: bool) -> None:
    folder, ran = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nraise RuntimeError")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    config |= {} if known else {"tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    refuse_own_code()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert tokenizer.encode("Hello")
    assert not ran.exists()
