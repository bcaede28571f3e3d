"""Load a model's weights in the form that this machine computes fastest, if the model computes with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx

from localapi.worker.llm import float32, row_products
from localapi.worker.llm.float32 import AS_STORED, Widened
from localapi.worker.llm.weights import LoadedModel, load_weights
from localapi.worker.model import Host


def load_suited(
    path: str, revision: str | None, host: Host, *, how: str = "auto", adapter: str | None = None, index: bool = False
) -> LoadedModel:
    """Return the model in a folder or repository. Raise CannotLoad.

    `how`: the entry's `cpu_weights`. `index`: as in `load_weights`.
    """
    on_processor = bool(host.fast_blas) and mx.default_device() == mx.Device(mx.cpu)

    def widen(model: Any) -> Widened:
        if how == "stored" or not on_processor:
            return AS_STORED
        return float32.widen(model, asked=how == "float32", blas=host.fast_blas)

    model = load_weights(path, revision, host.report, adapter=adapter, widen=widen, index=index)
    replaced = row_products.use_in(model.model) if on_processor else 0
    if not (model.widened.done or replaced) or _computes(model):
        return model
    stored = load_weights(path, revision, host.report, adapter=adapter)
    stays = Widened(says="Weights stay as stored, because the model requires it")
    return replace(stored, widened=stays, index=model.index)


def _computes(loaded: LoadedModel) -> bool:
    """Return True if the model computes finite numbers. An architecture may not find what it expects in its layers."""
    try:
        return bool(mx.all(mx.isfinite(loaded.model(mx.array([[0, 0]])))))
    except Exception:  # from the architecture
        return False
