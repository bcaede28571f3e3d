"""Search the Hub for the command line: `python -P -m localapi.worker.hub.search --text=TEXT [--limit=N]`.

Prints one line of JSON for each model, MLX models first, and {"end": true}; or {"error"} with a sentence.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any, Final

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from localapi.system.threads import within
from localapi.worker.hub.repository import ANSWER_SECONDS, unreachable
from localapi.worker.model import first_line

_BYTES: Final = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes per value for each type of tensor; 1 for all others."""
_ANY: Final = "mlx-community/any"
"""A name to request before the search, which would otherwise retry for a long time. It need not exist."""
_WANTED: Final = ("safetensors", "downloads", "tags", "pipeline_tag", "gated")


def main() -> None:
    """Search, and exit with status 0 if that succeeded, otherwise 1."""
    parser = argparse.ArgumentParser(
        prog="localapi.worker.hub.search", description="For internal use by the command line."
    )
    parser.add_argument("--text", required=True)
    parser.add_argument("--limit", type=int, default=20)
    asked = parser.parse_args()
    status = 0
    try:
        away = unreachable(_ANY, None)
        if away is not None:
            raise away  # noqa: TRY301  # the same answer as below
        for model in within(2 * ANSWER_SECONDS, lambda: search(asked.text, asked.limit)):
            _say(**model)
        _say(end=True)
    except HfHubHTTPError as error:
        _say(error=f"Hugging Face refused the search: {first_line(error)}")
        status = 1
    except Exception as error:  # of whichever HTTP library this huggingface_hub uses
        _say(error=f"Hugging Face cannot be reached ({first_line(error)}). Check the network and try again.")
        status = 1
    os._exit(status)  # threads may wait for the network


def search(text: str, limit: int) -> list[dict[str, Any]]:
    """Return the most downloaded models that match, MLX models first."""
    api = HfApi()
    found: dict[str, dict[str, Any]] = {}
    for tag in ("mlx", None):
        if len(found) < limit:
            models = api.list_models(search=text, filter=tag, sort="downloads", limit=limit, expand=list(_WANTED))
            for model in models:
                found.setdefault(model.id, _described(model))
    return list(found.values())[:limit]


def _described(model: Any) -> dict[str, Any]:
    parameters = getattr(model.safetensors, "parameters", None) or {}
    size = sum(count * _BYTES.get(name, 1) for name, count in parameters.items())
    return {
        "repository": model.id,
        "mlx": "mlx" in (model.tags or []),
        "size_bytes": size or None,
        "downloads": model.downloads,
        "task": model.pipeline_tag,
        "gated": bool(model.gated),
    }


def _say(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # what the command line reads


if __name__ == "__main__":
    main()
