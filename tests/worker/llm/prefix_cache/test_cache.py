"""Reuse of earlier prompts, with real models of every kind of cache: tiny, with random weights."""

from __future__ import annotations

import gc
import importlib
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_map
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import QuantizedKVCache, make_prompt_cache

from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.prompt_boundaries import segments

WORDS = 97
ANSWER = 8
PLENTY = 1 << 30
WINDOW = 24

_COMMON = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": WORDS}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3": {  # keeps every token
        **_COMMON, "num_hidden_layers": 2, "intermediate_size": 64, "head_dim": 8, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 4096, "rope_theta": 1e4, "tie_word_embeddings": False,
    },
    "gemma3_text": {  # sliding windows beside layers that keep every token
        **_COMMON, "num_hidden_layers": 2, "intermediate_size": 64, "head_dim": 8, "query_pre_attn_scalar": 8,
        "sliding_window": WINDOW, "sliding_window_pattern": 2,
    },
    "lfm2": {  # convolutions beside layers that keep every token
        **_COMMON, "num_hidden_layers": 2, "max_position_embeddings": 4096, "norm_eps": 1e-6, "conv_bias": False,
        "conv_L_cache": 3, "block_dim": 32, "block_ff_dim": 64, "block_multiple_of": 8, "full_attn_idxs": [1],
        "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
    },
    "qwen3_next": {  # gated delta nets beside layers that keep every token
        **_COMMON, "num_hidden_layers": 2, "full_attention_interval": 2, "intermediate_size": 64, "head_dim": 8,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 4096, "rope_theta": 1e4, "partial_rotary_factor": 0.5,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
        "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [], "moe_intermediate_size": 32,
    },
    "falcon_h1": {  # a recurrent state and all tokens in one and the same layer
        **_COMMON, "num_hidden_layers": 2, "intermediate_size": 64, "head_dim": 8, "rope_theta": 1e4,
        "mamba_d_head": 8, "mamba_d_ssm": 32, "mamba_d_state": 16, "mamba_n_heads": 4,
    },
    "mamba2": {  # nothing but recurrent states
        "hidden_size": 32, "vocab_size": WORDS, "num_heads": 4, "head_dim": 8, "intermediate_size": 32,
        "state_size": 16, "num_hidden_layers": 2, "layer_norm_epsilon": 1e-6, "conv_kernel": 4, "n_groups": 1,
        "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": False, "time_step_limit": [0.001, 0.1],
        "time_step_rank": "auto",
    },
}  # fmt: skip
RECURRENT = ["lfm2", "qwen3_next", "falcon_h1", "mamba2"]

Prompt = list[int]


@lru_cache
def model(kind: str) -> Any:
    """Weights so large that an answer depends on every part of its prompt."""
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    made = module.Model(module.ModelArgs.from_dict({"model_type": kind, **MODELS[kind]}))
    mx.random.seed(0)
    made.update(
        tree_map(lambda p: p if p.ndim < 2 else 1.5 * mx.random.normal(p.shape) / p.shape[-1] ** 0.5, made.parameters())
    )
    made.eval()
    mx.eval(made.parameters())
    return made


def cache_of(kind: str, max_bytes: int = PLENTY, **more: Any) -> PrefixCache:
    return PrefixCache(make_prompt_cache(model(kind)), max_bytes=max_bytes, **more)


def words(count: int, seed: object) -> Prompt:
    rng = random.Random(str(seed))
    return [rng.randrange(WORDS) for _ in range(count)]


def answers(
    kind: str, prompts: Sequence[Prompt], cache: PrefixCache | None = None, ends: Sequence[int] = ()
) -> tuple[list[Prompt], list[int]]:
    """Return the model's answers in one batch, as batch.py asks it, and the number of reused tokens of each."""
    generator = BatchGenerator(model(kind), prefill_step_size=16)
    starts, written = dict[int, int](), dict[int, Prompt]()
    for prompt in prompts:
        hit = cache.fetch(prompt) if cache else None
        start = hit.length if hit else 0
        (uid,) = generator.insert_segments(
            [segments(prompt, start, ends)],
            [ANSWER],
            caches=[hit.caches if hit else None],
            all_tokens=[prompt[:start]],
        )
        starts[uid], written[uid] = start, []
    left = len(prompts)
    while left:
        progress, responses = generator.next()
        for response in progress:
            if cache and response.end_of_segment and not response.end_of_prompt:
                caches, tokens = generator.extract_cache([response.uid])[response.uid]
                if len(tokens) in ends and not cache.covers(tokens):
                    cache.put(tokens, caches)
        for response in responses:
            written[response.uid].append(response.token)
            if response.finish_reason:
                left -= 1
                if cache:
                    cache.put(response.all_tokens, response.prompt_cache)
    return list(written.values()), list(starts.values())


@lru_cache
def _cold(kind: str, prompt: tuple[int, ...]) -> Prompt:
    return answers(kind, [list(prompt)])[0][0]


def cold(kind: str, prompt: Prompt) -> Prompt:
    return _cold(kind, tuple(prompt))


@pytest.mark.parametrize("kind", MODELS)
def test_a_conversation_goes_on_where_it_ended_and_says_the_same_as_without_the_cache(kind: str) -> None:
    cache, history = cache_of(kind), words(20, "system")
    for turn in range(2):
        prompt = history + words(15, turn)
        (answer,), (reused,) = answers(kind, [prompt], cache, ends=[20, len(prompt) - 2])
        assert answer == cold(kind, prompt)
        assert reused == (len(history) if turn else 0)
        history = prompt + answer
    first = words(20, "system") + words(15, 0)
    assert cold(kind, first) != cold(kind, words(30, "other") + first[-5:]), "its beginning matters"


@pytest.mark.parametrize("kind", MODELS)
def test_an_exact_repeat_feeds_at_least_one_token_and_says_the_same_each_time(kind: str) -> None:
    cache, prompt = cache_of(kind), words(30, "repeat")
    answers(kind, [prompt], cache, ends=[28])
    for _ in range(2):
        (answer,), (reused,) = answers(kind, [prompt], cache, ends=[28])
        assert answer == cold(kind, prompt)
        assert reused == (28 if kind in RECURRENT else 29)


@pytest.mark.parametrize("kind", MODELS)
def test_hits_of_all_lengths_and_misses_share_a_batch_and_say_what_they_say_alone(kind: str) -> None:
    cache, system, history = cache_of(kind), words(20, "system"), words(20, "system") + words(30, "history")
    answers(kind, [history], cache, ends=[20])
    prompts = [*(base + words(n, n) for base, n in ((system, 9), (history, 5), ([], 37), (history, 21))), history]
    for _ in range(2):
        assert answers(kind, prompts, cache)[0] == [cold(kind, prompt) for prompt in prompts]
    assert cache.hits == (9 if kind == "qwen3" else 8), "all but the third, which had no boundary to come back to"


def test_a_model_that_keeps_every_token_reuses_any_number_of_them() -> None:
    cache, prompt = cache_of("qwen3"), words(40, "stored")
    answers("qwen3", [prompt], cache)
    for common in (39, 23, 10):
        other = [*prompt[:common], (prompt[common] + 1) % WORDS, *words(5, common)]
        (answer,), (reused,) = answers("qwen3", [other], cache)
        assert (answer, reused) == (cold("qwen3", other), common)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_model_reuses_what_was_saved_at_exactly_that_point_and_nothing_else(kind: str) -> None:
    cache, prompt = cache_of(kind), words(40, "stored")
    answers(kind, [prompt], cache, ends=[20])
    other = [*prompt[:30], *words(10, "other")]
    (answer,), (reused,) = answers(kind, [other], cache)
    assert (answer, reused) == (cold(kind, other), 20)
    assert cache.fetch(prompt[:20]) is None, "it would need the state after 19 tokens"


def test_a_sliding_window_serves_wherever_a_whole_window_lies_before() -> None:
    cache, prompt = cache_of("gemma3_text"), words(16, "short")
    answers("gemma3_text", [prompt], cache)
    other = [*prompt[:12], *words(5, "other")]
    assert answers("gemma3_text", [other], cache) == ([cold("gemma3_text", other)], [12]), "all of it is in the window"

    long = words(3 * WINDOW, "long")
    answers("gemma3_text", [long], cache, ends=[WINDOW])
    other = [*long[: 2 * WINDOW], *words(5, "other")]
    assert answers("gemma3_text", [other], cache) == ([cold("gemma3_text", other)], [WINDOW]), (
        "half of it was overwritten"
    )


def test_only_models_that_forget_tokens_ask_for_boundaries() -> None:
    assert {kind for kind in MODELS if not cache_of(kind).needs_boundaries} == {"qwen3"}


def test_a_quantised_cache_is_reused_too() -> None:
    module = importlib.import_module("mlx_lm.models.qwen3")
    made = module.Model(module.ModelArgs.from_dict({"model_type": "qwen3", **MODELS["qwen3"], "head_dim": 32}))

    def empty() -> list[Any]:
        return [QuantizedKVCache(group_size=32, bits=8) for _ in made.layers]

    def answer(caches: list[Any], rest: Prompt) -> Prompt:
        said: Prompt = []
        for _ in range(ANSWER):
            said.append(int(made(mx.array([said[-1:] or rest]), cache=caches)[0, -1].argmax()))
        return said

    cache, prompt, caches = PrefixCache(empty(), max_bytes=PLENTY), words(300, "quantised"), empty()
    said = answer(caches, prompt)
    cache.put(prompt + said[:-1], caches)
    for _ in range(2):
        hit = cache.fetch(prompt)
        assert hit is not None
        assert hit.length == 299
        assert answer(hit.caches, prompt[299:]) == said


def test_conversations_with_the_same_beginning_share_its_memory() -> None:
    cache, system = cache_of("qwen3"), words(50, "system")
    per_token = 2 * 2 * 2 * 8 * 4
    """Layers, keys and values, heads, size, bytes."""
    answers("qwen3", [system + words(10, i) for i in range(5)], cache)
    assert cache.nbytes == per_token * (50 + 5 * (10 + ANSWER))


@pytest.mark.parametrize("kind", MODELS)
def test_it_counts_the_memory_that_it_really_holds(kind: str) -> None:
    cache = cache_of(kind)
    prompts = [words(20 + 17 * i, i) for i in range(8)]
    answers(kind, prompts, None)
    gc.collect()
    before = mx.get_active_memory()
    answers(kind, prompts, cache, ends=[20])
    gc.collect()
    held = mx.get_active_memory() - before
    arrays = 40 * len(cache)
    assert 0 <= held - cache.nbytes < 16384 + 512 * arrays, "no padding, and no batch behind a slice"
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_not_used_for_longest_goes_first_and_a_hit_counts_as_use(kind: str) -> None:
    one, two, three = (words(30, i) for i in range(3))
    measure = cache_of(kind)
    answers(kind, [one], measure)
    cache = cache_of(kind, int(2.5 * measure.nbytes))
    for prompt in (one, two):
        answers(kind, [prompt], cache)
    assert cache.fetch([*one, *cold(kind, one), 1])
    answers(kind, [three], cache)
    assert cache.nbytes <= 2.5 * measure.nbytes
    assert [cache.fetch([*p, *cold(kind, p), 1]) is not None for p in (one, two, three)] == [True, False, True]


def test_what_is_larger_than_the_whole_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = cache_of("qwen3", 256 * 60)
    answers("qwen3", [words(20, "small")], cache)
    answers("qwen3", [words(80, "large")], cache)
    assert cache.fetch(words(20, "small")) is not None
    assert cache.fetch(words(80, "large")) is None


@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text", "lfm2"])
def test_a_thousand_random_conversations_leave_a_sound_tree_below_its_cap(kind: str) -> None:
    source = cache_of(kind)
    rng, line = random.Random(kind), words(120, "line")
    stored = dict[int, Any]()
    for length in range(8, 120, 7):
        answers(kind, [[*line[:length], 0, 0]], source, ends=[length])
        hit = source.fetch([*line[:length], 0])
        assert hit is not None
        assert hit.length == length
        stored[length] = hit.caches
    lengths = list(stored)
    cache = cache_of(kind, source.nbytes // 3)
    for _ in range(1000):
        length = rng.choice(lengths)
        if rng.random() < 0.5:
            cache.put(line[:length], stored[length])
        elif hit := cache.fetch(line[:length]):
            assert hit.length < length
            sizes = {leaf.offset for leaf in hit.caches if hasattr(leaf, "offset")}
            assert sizes <= {hit.length}
        assert cache.nbytes <= source.nbytes // 3
        assert cache.nbytes == sum(slot.data.nbytes for slot in cache._recent)
    cache.clear()
    assert (cache.nbytes, cache._root.children) == (0, {})


def test_it_counts_hits_misses_and_the_tokens_that_were_reused() -> None:
    cache, prompt = cache_of("qwen3"), words(30, "counted")
    answers("qwen3", [prompt], cache)
    answers("qwen3", [prompt], cache)
    assert (cache.hits, cache.misses, cache.tokens_reused) == (1, 1, 29)


def test_caches_of_another_length_than_the_tokens_are_not_kept() -> None:
    cache = cache_of("qwen3")
    answers("qwen3", [words(30, "right")], cache)
    hit = cache.fetch([*words(30, "right"), 0])
    assert hit is not None
    cache.put(words(40, "wrong"), hit.caches)
    assert cache.fetch(words(40, "wrong")) is None
