"""Never run code that comes with a model: mlx-vlm and mlx-audio make transformers trust it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import dynamic_module_utils

from localapi.worker.model import CannotLoad

_RESOLVER = "resolve_trust_remote_code"
_resolve_trust = dynamic_module_utils.resolve_trust_remote_code


def _distrust(_trusted: bool | None, *arguments: Any, **options: Any) -> Any:
    """Use the class of transformers if there is one; raise ValueError otherwise."""
    return _resolve_trust(False, *arguments, **options)  # type: ignore[no-untyped-call]


def _refuse(*_: Any, **__: Any) -> None:
    raise ValueError("It needs its own code, but localapi does not run code from models.")


def refuse_own_code() -> None:
    """Make transformers trust no code from models from now on, regardless of its caller."""
    vars(dynamic_module_utils)["get_cached_module_file"] = _refuse
    for name, module in list(sys.modules.items()):
        if name.startswith("transformers.") and vars(module).get(_RESOLVER) is _resolve_trust:
            vars(module)[_RESOLVER] = _distrust


def check_own_code(folder: Path, config: Mapping[str, Any], library: str) -> None:
    """Raise CannotLoad for a model whose architecture is a file beside its weights."""
    if config.get("model_file"):
        raise CannotLoad(
            f"The model in {folder} needs its own code ({config['model_file']}), but localapi does not run code from "
            f"models. Use a model whose architecture {library} knows."
        )
