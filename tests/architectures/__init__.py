"""Small architectures that the real `mlx_audio.tts.utils.load_model` loads, in environments of the tests' making.

Importable as `mlx_audio.tts.models.<name>` where this folder is on the import path and this package is imported; see
tests/mlx_audio_models.py.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

ARCHITECTURES = "mlx_audio.tts.models."


class Finder:
    @staticmethod
    def find_spec(name: str, *_: Any) -> ModuleSpec | None:
        source = Path(__file__).parent / name.removeprefix(ARCHITECTURES) / "__init__.py"
        known = name.startswith(ARCHITECTURES) and source.is_file()
        return importlib.util.spec_from_file_location(name, source) if known else None


sys.meta_path.append(Finder)  # type: ignore[arg-type]
