"""Convert weights to float32 on a CPU, which takes more memory and is several times as fast.

MLX's CPU build leaves float32 products to a BLAS and computes all others itself, those of quantized weights and of 16
bits, on one core and anew for each row of a prompt. With OpenBLAS, float32 is ten times faster for prompts. Whether it
is faster on this machine, for weights of this kind, is measured once and cached.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_map, tree_unflatten

from localapi.system.atomic_file import write_whole
from localapi.system.byte_sizes import readable
from localapi.system.folders import cache_folder
from localapi.worker.llm import row_products

SHARE: Final = 0.5
"""Maximum share of the free memory for the weights. The rest is for conversations and other programs."""
PROMPT_GAIN: Final = 1.5
"""Required speed-up of prompts."""
DECODE_GAIN: Final = 1.05
"""Required speed-up of a single row. Otherwise single rows are computed with the stored weights."""
PROMPT_ROWS: Final = 32
TOLERANCE: Final = 1e-3
"""Largest difference of two float32 results, relative to the largest number."""
SMALL_BYTES: Final = 32 * 2**20
"""Size of float32 weights below which models spend their time elsewhere."""
AGAIN_SECONDS: Final = 24 * 3600
"""Time after which a gain that was too small is measured again, because the machine may have been busy."""
_SAMPLE_BYTES: Final = 48 * 2**20
"""Size of the float32 weights that are measured: more than fast caches hold, because a token reads the whole model."""
DIRECT_SIZE: Final = 1_000_000
"""Weights of smaller layers OpenBLAS multiplies where they are: SMALL_MATRIX_OPT, of x86-64 with AVX-512."""
_REPEATS: Final = 4
_HALF: Final = (mx.float16, mx.bfloat16)


@dataclass(frozen=True)
class Gain:
    """Speed-up of float32 over the stored weights."""

    prompt: float
    decode: float

    @property
    def prompts(self) -> bool:
        return self.prompt >= PROMPT_GAIN

    @property
    def all(self) -> bool:
        return self.prompts and self.decode >= DECODE_GAIN


@dataclass(frozen=True)
class Widened:
    """Result for a model's weights."""

    done: bool = False
    says: str = ""
    """Note for users; empty if there was nothing to decide."""


AS_STORED: Final = Widened()


def widen(model: Any, *, asked: bool, blas: str) -> Widened:
    """Convert the model's weights to float32 if that is possible and faster.

    If `asked`, the entry requires it, so nothing is compared. `blas` is the library, for the cache of measurements.
    """
    kinds: dict[str, list[Any]] = {}
    for _, module in model.named_modules():
        kind = _kind(module)
        if kind:
            kinds.setdefault(kind, []).append(module)
    needed = sum(_float32_bytes(module) for modules in kinds.values() for module in modules)
    if not kinds or (needed < SMALL_BYTES and not asked):
        return AS_STORED
    free = available_bytes()
    if needed > SHARE * free and not asked:
        sizes = f"as float32 they would take {readable(needed)}, and {readable(free)} are free"
        return Widened(says=f"Weights are kept as stored: {sizes}")
    # The kind of most weights decides: a half-converted model has the disadvantages of both.
    kind, modules = max(kinds.items(), key=lambda each: sum(_float32_bytes(module) for module in each[1]))
    gain = _known(f"{kind} {blas}", lambda: measure_gain(modules))
    speeds = f"prompts are {gain.prompt:.1f} times as fast and answers {gain.decode:.1f} times"
    if not asked and not (gain.prompts if _quantised(modules[0]) else gain.all):
        return Widened(says=f"Weights are kept as stored: as float32 {speeds} on this machine")
    both = not asked and not gain.all
    _replace(model, keep_stored=both)
    also = "; answers use the stored weights" if both else ""
    return Widened(True, f"Weights are float32 in memory ({readable(needed)}): {speeds}{also}")


def _kind(module: Any) -> str:
    """Return what determines a layer's speed; empty if it is float32, or should not be converted.

    Only MLX's own layers are converted: an architecture's own layers may use their numbers in other ways. Experts are
    not converted either: a token reads only a few of them, and together they are most of a model.
    """
    if _quantised(module):
        return f"{module.mode} {module.bits} {module.group_size} {module.scales.dtype}"
    if type(module) in (Linear, Embedding) and module.weight.dtype in _HALF:
        return str(module.weight.dtype)
    return ""


def _quantised(module: Any) -> bool:
    return type(module) in (QuantizedLinear, QuantizedEmbedding)


def _float32_bytes(module: Any) -> int:
    if _quantised(module):
        return 4 * int(module.scales.size) * int(module.group_size)
    return 4 * int(module.weight.size)


def _weight(module: Any) -> mx.array:
    """Return the layer's weights as float32, not evaluated."""
    exact = _exact(module)
    if _quantised(module):
        weight = mx.dequantize(
            exact["weight"],
            exact["scales"],
            exact.get("biases"),
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
        )
        return weight.astype(mx.float32)
    return exact["weight"]


def _exact(module: Any) -> dict[str, mx.array]:
    """Return the layer's parameters, with those of 16 bits as float32, so that nothing is rounded."""
    return {name: a.astype(mx.float32) if a.dtype in _HALF else a for name, a in module.parameters().items()}


def _by_columns(weight: mx.array) -> mx.array:
    """Return the same weight in the layout of the product: OpenBLAS then copies no small ones for single rows."""
    return mx.contiguous(weight.T).T if weight.size < DIRECT_SIZE else weight


class _LinearForPrompts(Linear):
    """Layer that computes single rows with the quantized weights."""

    def __call__(self, x: mx.array) -> mx.array:
        if x.size == x.shape[-1]:
            stored: mx.array = self.stored(x)
            return stored
        return super().__call__(x)


class _EmbeddingForPrompts(Embedding):
    """Embedding that does the same, because it is also the last layer of some models."""

    def as_linear(self, x: mx.array) -> mx.array:
        if x.size == x.shape[-1]:
            stored: mx.array = self.stored.as_linear(x)
            return stored
        return x @ self.weight.T


def _replace(model: Any, *, keep_stored: bool) -> None:
    """Replace each layer by one in float32, and all other numbers of 16 bits."""
    replaced = []
    for name, module in model.named_modules():
        if not _kind(module):
            continue
        keep = keep_stored and _quantised(module)
        if type(module) in (Embedding, QuantizedEmbedding):
            new: Any = _EmbeddingForPrompts(1, 1) if keep else Embedding(1, 1)
            new.weight = _weight(module)
        else:
            new = (_LinearForPrompts if keep else Linear)(1, 1, bias="bias" in module)
            if "bias" in module:
                new.bias = module.bias
            new.weight = _by_columns(_weight(module))
        if keep:
            new.stored = module
        replaced.append((name, new))
    model.update_modules(tree_unflatten(replaced))
    model.update(tree_map(lambda a: a.astype(mx.float32) if a.dtype in _HALF else a, model.parameters()))
    model.eval()


def measure_gain(modules: Sequence[Any]) -> Gain:
    """Measure how much faster some of these layers, all of one kind, are in float32.

    There is no gain if results differ.
    """
    sample = list(_sample(modules))
    weights = [_by_columns(_weight(module)) for module in sample]
    mx.eval(weights)
    if not _right(sample[0], weights[0]):
        return Gain(0, 0)
    dtype = sample[0].scales.dtype if _quantised(sample[0]) else sample[0].weight.dtype
    if not mx.issubdtype(dtype, mx.floating):
        dtype = mx.bfloat16  # the scales of some formats are whole numbers, and such models compute with this
    gains = []
    for rows, count in ((PROMPT_ROWS, 1 + len(sample) // 8), (1, len(sample))):
        given = [mx.random.normal((rows, weight.shape[1]), key=mx.random.key(rows)) for weight in weights[:count]]
        half = [x.astype(dtype) for x in given]
        mx.eval(given, half)
        slow = _timed(partial(_products, sample, half))
        fast = _timed(partial(_wide_products, weights, given))
        gains.append(slow / fast)
    return Gain(*gains)


def _sample(modules: Sequence[Any]) -> Iterator[Any]:
    size = 0
    for module in modules:
        if size and size + _float32_bytes(module) > _SAMPLE_BYTES:
            continue  # the embedding alone may be larger than the whole sample
        size += _float32_bytes(module)
        yield module


def _products(modules: Sequence[Any], rows: Sequence[mx.array]) -> list[mx.array]:
    return [_product(module, x, module) for module, x in zip(modules, rows, strict=False)]


def _wide_products(weights: Sequence[mx.array], rows: Sequence[mx.array]) -> list[mx.array]:
    return [
        row_products.product(x, weight) if row_products.takes(x, weight) else x @ weight.T
        for weight, x in zip(weights, rows, strict=False)
    ]


def _product(module: Any, x: mx.array, numbers: Mapping[str, mx.array]) -> mx.array:
    """Return the layer's product with these parameters of it, without the bias."""
    if not _quantised(module):
        return x @ numbers["weight"].T
    return mx.quantized_matmul(
        x,
        numbers["weight"],
        scales=numbers["scales"],
        biases=numbers.get("biases"),
        transpose=True,
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    )


def _timed(compute: Callable[[], list[mx.array]]) -> float:
    """Return the minimum seconds of a few attempts."""
    best = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        mx.eval(compute())
        best = min(best, time.perf_counter() - began)
    return max(best, 1e-6)


def _right(module: Any, weight: mx.array) -> bool:
    """Return True if a product with this weight equals the layer's own, which is also computed in float32.

    The stored layer would be summed in 16 bits, which has an error of a tenth in long rows.
    """
    x = mx.random.normal((3, weight.shape[1]), key=mx.random.key(1))
    wanted = _product(module, x, _exact(module))
    return bool(mx.max(mx.abs(x @ weight.T - wanted)) <= TOLERANCE * mx.max(mx.abs(wanted)))


def _known(what: str, measure: Callable[[], Gain]) -> Gain:
    """Return the gain that was measured before on this machine, or measure it now."""
    folder = cache_folder("float32")
    if folder is None:
        return measure()
    made_of = f"{what} {importlib.metadata.version('mlx')} {Path(__file__).read_text()}"
    file = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.json"
    try:
        known = Gain(**json.loads(file.read_text()))
        if known.all or 0 <= time.time() - file.stat().st_mtime < AGAIN_SECONDS:
            return known
    except (OSError, ValueError, TypeError):
        pass  # not measured yet
    gain = measure()
    with contextlib.suppress(OSError):  # a full or read-only disk: it is measured again next time
        write_whole(file, json.dumps(asdict(gain)).encode())
    return gain


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what can be allocated without swapping, in the machine or its container, whichever is less."""
    amounts = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            amounts = [1024 * int(line.split()[1])]
    own = next((line[3:].strip("/") for line in _text(proc / "self/cgroup").splitlines() if line.startswith("0::")), "")
    for folder in (cgroup / own, *(cgroup / own).parents):
        limit, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
        if limit.isdecimal() and used.isdecimal():
            amounts.append(max(0, int(limit) - int(used)))
        if folder == cgroup:
            break
    return min(amounts)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
