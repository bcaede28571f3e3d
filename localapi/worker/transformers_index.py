"""Cache what transformers computes about its own files at each import, which halves the time to import mlx-lm.

Before it can import anything, it reads its 1,700 model files to learn which contains which class, and it does so twice,
because its cache is too small (utils/import_utils.py of version 5.23: `define_import_structure`). The result depends
only on those files, so it is stored in a file for this version at this place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from localapi.system.atomic_file import write_whole
from localapi.system.folders import cache_folder

_MODULE: Final = "transformers.utils.import_utils"
_FUNCTION: Final = "define_import_structure"
_LARGE_FOLDER: Final = "models"

Structure = dict[frozenset[str], dict[str, set[str]]]
"""Names of classes and functions by module, by the packages that they need."""
Define = Callable[..., Structure]


def keep() -> None:
    """Install the cache in this process. Do nothing if the user has no cache folder."""
    folder = cache_folder("transformers")
    if folder is not None:
        sys.meta_path.insert(0, _Finder(folder))


class _Finder(MetaPathFinder):
    """Import hook that replaces the function as soon as its module is imported, before transformers calls it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_replace(module: ModuleType) -> None:
                run(module)
                define = getattr(module, _FUNCTION, None)
                if define is not None:
                    setattr(module, _FUNCTION, _kept(define, self._folder))

            spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]
        return spec


def _kept(define: Define, folder: Path) -> Define:
    def kept(module_path: str | Path, prefix: str | None = None) -> Structure:
        place = Path(module_path)
        is_installed = {"site-packages", "dist-packages"}.intersection(place.parts)  # a checkout may change at any time
        if not is_installed or (place.parent if place.suffix else place).name != _LARGE_FOLDER:
            return define(module_path, prefix=prefix)
        file = folder / (hashlib.sha256(f"{place}\n{prefix}".encode()).hexdigest()[:16] + ".json")
        state = _state(place)
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            told = json.loads(file.read_bytes())
            if told["state"] == state:
                return _structure(told["structure"])
        found = define(module_path, prefix=prefix)
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            text = json.dumps({"state": state, "structure": _plain(found)})
            if _structure(json.loads(text)["structure"]) == found:  # otherwise another version uses another form
                write_whole(file, text.encode())
        return found

    return kept


def _state(place: Path) -> list[Any]:
    """Return values that change with each installation."""
    package = sys.modules["transformers"]
    return [getattr(package, "__version__", None), *(path.stat().st_mtime_ns for path in (place, place.parent))]


def _plain(structure: Structure) -> list[Any]:
    return [
        [sorted(needs), {module: sorted(names) for module, names in modules.items()}]
        for needs, modules in structure.items()
    ]


def _structure(plain: list[Any]) -> Structure:
    return {frozenset(needs): {module: set(names) for module, names in modules.items()} for needs, modules in plain}
