"""Models to measure with: random weights, so that nothing is downloaded, and an end token that is never chosen.

So every answer has exactly as many tokens as were asked for, whoever answers.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.bench.processes import Aside

VOCABULARY: Final = {"tiny": 768, "middle": 4096}
SIZES: Final[dict[str, dict[str, int]]] = {
    "tiny": {},
    "middle": {
        "hidden_size": 256,
        "num_hidden_layers": 8,
        "intermediate_size": 768,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
    },
}
"""`tiny` is as large as the demo model, where the server's own work weighs most; `middle` has 7 million parameters."""
CONTEXT_TOKENS: Final = 65_536
WORDS_PER_TOKEN: Final = {"tiny": 0.38, "middle": 0.43}
"""Approximate words per token of the texts that `prompts` makes."""


def made(name: str, folder: Path) -> Path:
    """The model's folder: built below `folder` where it is one of SIZES, else it is there already."""
    if name not in SIZES:
        return Path(name).absolute()
    with Aside() as aside:
        return aside(build, name, folder)


def words(model: str, tokens: int) -> int:
    """Return the approximate number of words of `prompts` for so many tokens of this model."""
    return int(tokens * WORDS_PER_TOKEN.get(model, 0.45))


def build(name: str, out: Path) -> Path:
    """Write a model of that size into a new folder below `out`."""
    import mlx.core as mx  # noqa: PLC0415  # the parent process of a benchmark needs no MLX

    from tools.demo import train  # noqa: PLC0415
    from tools.demo.lines import PROSE  # noqa: PLC0415
    from tools.demo.tokenizer import make_tokenizer  # noqa: PLC0415

    tokenizer = make_tokenizer(PROSE, VOCABULARY[name])
    model: Any
    model, config = train.make_model(tokenizer, **SIZES[name], max_position_embeddings=CONTEXT_TOKENS)
    weight = model.model.embed_tokens.weight
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    silent = [token for token, text in enumerate(texts) if not text.strip().isalpha() or not text.isascii()]
    # Their logits are 0 then, and some other one is always larger: each token of an answer is a piece of text.
    weight[mx.array([tokenizer.eos_token_id, *silent])] = 0
    mx.eval(model.parameters())
    train.save(model, config, tokenizer, out / name)
    return out / name


def prompts(count: int, words: int, *, seed: str) -> list[str]:
    """Texts that share no beginning, so that nobody answers from a prefix cache."""
    rng = random.Random(seed)
    return [" ".join(_words(rng, words)) for _ in range(count)]


def _words(rng: random.Random, count: int) -> Iterable[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ("".join(rng.choices(letters, k=rng.randint(1, 3))) for _ in range(count))
