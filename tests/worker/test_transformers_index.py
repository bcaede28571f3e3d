"""transformers looks into its files once, and what it is told afterwards is what it would find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localapi.system.folders import cache_folder

SCRIPT = """
import json, sys
opened = []
sys.addaudithook(lambda event, found: event == "open" and opened.append(str(found[0])))
if sys.argv[1] == "kept":
    from localapi.worker import transformers_index
    transformers_index.keep()
import transformers.models
from transformers import AutoTokenizer, Qwen3Config
from transformers.utils import import_utils
import pathlib
models = pathlib.Path(transformers.__file__).parent / "models"
read = {name for name in opened if name.startswith(str(models)) and "modeling_" in name and name.endswith(".py")}
if sys.argv[1] == "plain":
    import_utils.define_import_structure.cache_clear()  # transformers adds to what that holds
seen = [
    sorted([sorted(needs), sorted([module, sorted(names)] for module, names in modules.items())]
    for needs, modules in found.items())
    for found in (
        import_utils.define_import_structure(models, prefix="models"),
        import_utils.define_import_structure(str(models / "__init__.py")),
    )
]
print(json.dumps({"seen": seen, "read": len(read), "class": Qwen3Config.__module__}))
"""


MANY, FEW = 300, 10
"""Files of models that were read: all, or those of the one architecture that is imported."""


def imported(how: str, caches: Path) -> tuple[Any, int]:
    """Return the index of transformers, and the number of files that it read for it."""
    env = {**os.environ, "XDG_CACHE_HOME": str(caches), "HOME": str(caches)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told, told.pop("read")


def kept_files(caches: Path) -> list[Path]:
    return sorted(caches.rglob("localapi/transformers/*"))


@pytest.mark.long
def test_the_files_are_read_once_for_an_installation_and_the_same_is_known_afterwards(tmp_path: Path) -> None:
    plain, read = imported("plain", tmp_path)
    assert (read > MANY, kept_files(tmp_path)) == (True, [])
    first, read = imported("kept", tmp_path)
    assert (first == plain, read > MANY) == (True, True)
    kept = {file: file.read_text() for file in kept_files(tmp_path)}
    again, read = imported("kept", tmp_path)
    assert (again == plain, read < FEW, [file.suffix for file in kept]) == (True, True, [".json"] * 2)

    of_another, broken = kept
    of_another.write_text(json.dumps({**json.loads(kept[of_another]), "state": ["4.0", 1, 2]}))
    broken.write_text("[]")
    anew, read = imported("kept", tmp_path)
    assert (anew == plain, read > MANY) == (True, True)
    assert {file: file.read_text() for file in kept_files(tmp_path)} == kept


def test_where_nothing_can_be_kept_it_is_as_without(tmp_path: Path) -> None:
    (tmp_path / "localapi").write_text("a file where the folder should be")
    (tmp_path / "Library").write_text("")
    assert imported("kept", tmp_path)[1] > MANY


def test_caches_have_no_place_in_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, place in {
        "/var/x": "/var/x",
        "~/y": f"{tmp_path}/y",
        "": f"{tmp_path}/.cache",
        "rel": f"{tmp_path}/.cache",
    }.items():
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder("z") == Path(place) / "localapi" / "z"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user whom nobody knows
    assert cache_folder("z") is None
