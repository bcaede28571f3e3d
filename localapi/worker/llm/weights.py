"""Load a model from an entry's path, or raise one clear error.

This module knows files and how mlx-lm loads models, but no requests. Code that comes with a model is never run.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS, load_adapters, load_model, load_tokenizer

from localapi.worker.hub.repository import anew, located
from localapi.worker.llm import float32, row_products
from localapi.worker.llm.constrained.vocabulary import VocabularyIndex
from localapi.worker.llm.float32 import AS_STORED, Widened
from localapi.worker.llm.shards.splitting import ModelPart
from localapi.worker.model import CannotLoad, Host, Report, first_line, read_object
from localapi.worker.own_code import check_own_code
from localapi.worker.protocol import Loading

ADAPTER_PATTERNS = ["adapter_config.json", "adapters.safetensors"]
READ_BYTES = 256 * 1024 * 1024
"""Size of the weights that are read between two progress reports."""


@dataclass(frozen=True)
class LoadedModel:
    """Model that mlx-lm has loaded. `tokenizer` is mlx-lm's TokenizerWrapper."""

    folder: Path
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    adapter: Path | None = None
    """Folder of the LoRA adapter that is part of the model."""
    widened: Widened = AS_STORED
    part: ModelPart | None = None
    """Part of the model that this process holds; None for all of it."""
    index: VocabularyIndex | None = None
    """Index of the tokens for structured output, if it is needed."""

    @property
    def lone_caches(self) -> str:
        """Kinds of its caches that mlx-lm cannot batch, such as Llama 4's chunked one; empty if there are none."""
        caches = make_prompt_cache(self.model)
        return ", ".join(sorted({type(cache).__name__ for cache in caches if not hasattr(cache, "merge")}))


def load_weights(
    path: str,
    revision: str | None,
    report: Report,
    *,
    adapter: str | None = None,
    widen: Callable[[Any], Widened] = lambda _: AS_STORED,
    split: Callable[[Any, Mapping[str, Any]], ModelPart] | None = None,
    index: bool = False,
) -> LoadedModel:
    """Return the model in this folder or repository, with its weights in memory. Raise CannotLoad.

    `widen` may replace the model's weights before they are read. `split` keeps only a part of the model, by its config.
    With `index`, build the index of the vocabulary while the weights are being read.
    """
    folder = located(path, revision, report, patterns=DEFAULT_ALLOW_PATTERNS)
    adapted = _adapter_folder(adapter, report) if adapter else None
    total = sum(check_weights(folder, path))
    report(Loading("reading weights", 0, total))
    model, config = _model(folder)
    if adapted:
        _adapt(model, folder, adapted)
    part = split(model, config) if split is not None else None
    widened = _widened(model, widen)
    tokenizer = read_tokenizer(folder, config)
    tokens = VocabularyIndex(tokenizer, logits_width(config, tokenizer)) if index else None
    total = max(total, sum(array.nbytes for array in _arrays(model)))
    for done in read_weights(model):
        report(Loading("reading weights", min(done, total), total))
    return LoadedModel(folder, model, tokenizer, config, adapted, widened, part, tokens)


def logits_width(config: Mapping[str, Any], tokenizer: Any) -> int:
    """Return the width of the model's logits, which may be padded beyond the tokenizer's vocabulary."""
    return int(config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or len(tokenizer))


def check_weights(folder: Path, path: str) -> Iterator[int]:
    """Yield the size of each weights file in bytes, after checking that all are complete. Raise CannotLoad.

    `path`: the entry's path, which determines what the user can do.
    """
    again = "Download the model again" if Path(path).is_absolute() else "Check the network and try again"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(read_object(index).get("weight_map", {}).values())
        missing = sorted(name for name in named if not (folder / name).is_file())
        if missing:
            raise CannotLoad(f"{folder} lacks {', '.join(missing)}, named in {index.name}. {again}.")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise CannotLoad(
            f"{folder} has no weights (model*.safetensors); found: {found}. Was the download interrupted? {again}. "
            "mlx-lm reads safetensors only; convert other formats with `mlx_lm.convert`."
        )
    for file in files:
        try:
            mx.load(str(file))  # reads the header, and checks it against the size; its error names no file
        except RuntimeError as error:
            raise CannotLoad(f"{file} is damaged: {first_line(error)}. {anew(file, path)}.") from error
        yield file.stat().st_size


def _model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the model with weights that have not been read, and its config."""
    config = read_object(folder / "config.json")
    check_own_code(folder, config, "mlx-lm")
    try:
        model, config = load_model(folder, lazy=True)
    except Exception as error:  # from mlx-lm, from MLX or from the architecture's config class
        version, kind = importlib.metadata.version("mlx-lm"), config.get("model_type")
        if "not supported" in str(error) and str(kind) in str(error):
            raise CannotLoad(
                f"{folder / 'config.json'} has model_type {kind!r}, which mlx-lm {version} does not support. Use a "
                "model of another architecture, or a newer mlx-lm."
            ) from error
        raise CannotLoad(
            f"mlx-lm {version} cannot load the model in {folder}: {first_line(error)}. Are config.json and the "
            "weights of the same model?"
        ) from error
    return model, config


def _adapter_folder(adapter: str, report: Report) -> Path:
    folder = located(adapter, None, report, patterns=ADAPTER_PATTERNS)
    missing = [name for name in ADAPTER_PATTERNS if not (folder / name).is_file()]
    if missing:
        raise CannotLoad(
            f"The adapter {adapter} has no {' and no '.join(missing)}. mlx-lm's adapters have both; adapters of "
            "other tools must be converted first."
        )
    return folder


def _adapt(model: Any, folder: Path, adapter: Path) -> None:
    """Add the adapter's layers to the model. Raise CannotLoad if they do not fit."""
    config = read_object(adapter / "adapter_config.json")
    if "fine_tune_type" not in config and "num_layers" not in config:
        raise CannotLoad(
            f"{adapter / 'adapter_config.json'} has no num_layers, so this adapter is not mlx-lm's. Convert it, or "
            "train one with `mlx_lm.lora`."
        )
    try:
        load_adapters(model, str(adapter))
    except Exception as error:  # another shape, other layers, a damaged file
        said = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise CannotLoad(
            f"The adapter in {adapter} does not fit the model in {folder}: {said.rstrip('.')}. Use the model on "
            f"which it was trained."
        ) from error
    model.eval()  # the new layers would apply dropout, as in training


def _widened(model: Any, widen: Callable[[Any], Widened]) -> Widened:
    try:
        return widen(model)
    except RuntimeError as error:  # it reads some of the weights
        raise CannotLoad(f"Reading the weights failed: {first_line(error)}") from error


def _arrays(model: Any) -> list[mx.array]:
    return [array for _, array in cast("list[Any]", tree_flatten(model.parameters()))]


def read_weights(model: Any) -> Iterator[int]:
    """Read the weights in portions; yield the bytes that have been read."""
    arrays = _arrays(model)
    done, size, portion = 0, 0, list[mx.array]()
    try:
        for array in arrays:
            portion.append(array)
            size += array.nbytes
            if size >= READ_BYTES:
                mx.eval(portion)
                done, size, portion = done + size, 0, []
                yield done
        mx.eval(model.parameters())
    except RuntimeError as error:
        raise CannotLoad(f"Reading the weights failed: {first_line(error)}") from error
    yield done + size


def read_tokenizer(folder: Path, config: dict[str, Any], *, template: str | None = None) -> Any:
    """Return mlx-lm's TokenizerWrapper of a folder; `template` is used if it has no template. Raise CannotLoad."""
    files = f"The tokenizer in {folder} (tokenizer.json, tokenizer_config.json)"
    ending = config.get("eos_token_id") or (config.get("text_config") or {}).get("eos_token_id")
    try:
        tokenizer = load_tokenizer(  # type: ignore[no-untyped-call]
            folder, {"trust_remote_code": False}, eos_token_ids=ending
        )
        if template is not None and not tokenizer.has_chat_template:
            extra = {"trust_remote_code": False, "chat_template": template}
            tokenizer = load_tokenizer(folder, extra, eos_token_ids=ending)  # type: ignore[no-untyped-call]
        words = tokenizer.encode("Hello", add_special_tokens=False)
    except Exception as error:  # from transformers, tokenizers or json
        raise CannotLoad(f"{files} cannot be read: {first_line(error)}") from error
    if not words:  # transformers creates an empty tokenizer if there is no file
        raise CannotLoad(f"{files} is missing or has no vocabulary. Download the model again.")
    return tokenizer


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
    stays = Widened(says="Weights are kept as stored, because the model requires it")
    return replace(stored, widened=stays, index=model.index)


def _computes(loaded: LoadedModel) -> bool:
    """Return True if the model computes finite numbers. An architecture may not find what it expects in its layers."""
    try:
        return bool(mx.all(mx.isfinite(loaded.model(mx.array([[0, 0]])))))
    except Exception:  # from the architecture
        return False
