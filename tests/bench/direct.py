"""mlx-lm called from Python, without any server: what there is to reach."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from localapi.worker import blas


@lru_cache(maxsize=1)
def _loaded(path: str) -> tuple[Any, Any]:
    import mlx_lm  # noqa: PLC0415  # only the process that measures imports it

    return mlx_lm.load(path)[:2]


def use_our_blas() -> None:
    """Load the BLAS that our workers load. It must be done before MLX is imported."""
    blas.install_openblas()


def generate(path: str, prompts: Sequence[str], max_tokens: int, *, batch: bool) -> tuple[float, int]:
    """Seconds for an answer to each prompt, and how many tokens they had; `stream_generate` takes one prompt."""
    import mlx_lm  # noqa: PLC0415
    from mlx_lm.generate import batch_generate  # noqa: PLC0415

    model, tokenizer = _loaded(path)
    started = time.perf_counter()
    tokens = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
        for prompt in prompts
    ]
    if batch:
        generated = sum(map(len, batch_generate(
            model, tokenizer, tokens, max_tokens=max_tokens, return_token_ids=True
        ).token_ids))  # fmt: skip
    else:
        (prompt,) = tokens
        generated = sum(1 for _ in mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=max_tokens))
    return time.perf_counter() - started, generated
