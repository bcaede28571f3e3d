"""Try whether a model computes the same if its rows are decoded together, and if computed tokens are gone on from.

What is compared are log probabilities, with those of mlx-vlm's own call for one prompt. They may differ by as much as
they do if a text is computed in two parts: that is rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import PromptProcessingBatch, _merge_caches
from mlx_vlm.generate import generate_step  # type: ignore[import-not-found]
from mlx_vlm.models.cache import make_prompt_cache  # type: ignore[import-not-found]

from localapi.worker.llm.request_reading import Prompt
from localapi.worker.vlm.language import Language, MediaPrompt

LEAST_DIFFERENCE = 1e-3
"""Difference of log probabilities that is rounding."""
MOST_DIFFERENCE = 0.5
"""Difference that is not rounding."""
PROBE_TOKENS = 24
STEPS = 3


@dataclass(frozen=True)
class Findings:
    """Results of a trial."""

    together: bool = False
    """Rows are decoded together as alone."""
    continues_media: bool = False
    """A prompt with media can be computed in two parts, if the second part is text."""


def tried(model: Any, probes: Sequence[tuple[Prompt, Prompt]]) -> Findings:
    """Try a model. `probes`: for each of its senses, two prompts that begin with the same image or recording."""
    language, texts = Language(model), _texts()
    try:
        rounding = _apart(_said(model, texts[0]), _said(model, texts[0], prefill_step_size=PROBE_TOKENS // 2))
    except Exception:  # from the architecture
        return Findings()
    if rounding > MOST_DIFFERENCE:
        return Findings()
    allowed = LEAST_DIFFERENCE + 4 * rounding
    together = _decodes_together(language, [*texts, *(prompt for pair in probes for prompt in pair)], allowed)
    media = bool(probes) and all(_goes_on(language, before, prompt, allowed) for before, prompt in probes)
    return Findings(together, continues_media=media)


def _texts() -> list[Prompt]:
    """Return two texts of different length."""
    return [Prompt([3 + at * step % 100 for at in range(length)]) for step, length in ((37, PROBE_TOKENS), (11, 17))]


def _decodes_together(language: Language, prompts: Sequence[Prompt], allowed: float) -> bool:
    try:
        expected = [_said(language.whole, prompt) for prompt in prompts]
        for width in (1, STEPS):
            found = _said_together(language, prompts, width)
            if any(_apart(one, other) > allowed for one, other in zip(found, expected, strict=True)):
                return False
    except Exception:  # from the architecture
        return False
    return True


def _goes_on(language: Language, before: Prompt, prompt: Prompt, allowed: float) -> bool:
    """Return True if the rest of a prompt, which is text, can follow on what was computed for the one before."""
    end = prompt.sight.end
    if end is None or before.sight.end != end:
        return False
    try:
        media = MediaPrompt(language, before.tokens, before.sight, language.make_cache())
        media.look()
        if media.left < end:
            return False
        media.advance(end)
        text = MediaPrompt(language, prompt.tokens, prompt.sight, media.caches, end)
        text.look()
        text.advance(text.left)
        return _apart(_logprobs(text.last_step(None, text.caches)[0]), _said(language.whole, prompt)[:1]) <= allowed
    except Exception:  # from the architecture
        return False


def _said(model: Any, prompt: Prompt, **options: Any) -> mx.array:
    """Return mlx-vlm's log probabilities (STEPS + 1, vocabulary) of the tokens after a prompt.

    These are the same token each time, whatever is likely: see `_next`.
    """
    sight, tokens, pixels, mask, others = prompt.sight, mx.array([prompt.tokens]), None, None, {}
    if sight is not None:
        tokens, pixels, mask, others = sight.input_ids, sight.pixel_values, sight.mask, dict(sight.others)
    steps = generate_step(
        tokens,
        model,
        pixels,
        mask,
        max_tokens=STEPS + 1,
        sampler=lambda logprobs: mx.full(logprobs.shape[:-1], _next(prompt), mx.uint32),
        prompt_cache=make_prompt_cache(model.language_model),
        **options,
        **others,
    )
    return mx.stack([logprobs.astype(mx.float32).flatten() for _, logprobs, *_ in steps])


def _next(prompt: Prompt) -> int:
    return prompt.tokens[-1]


def _said_together(language: Language, prompts: Sequence[Prompt], width: int) -> list[mx.array]:
    """Return the same for prompts in one batch, with steps of so many tokens."""
    rows, shifts, first = [], list[int](), list[mx.array]()
    for prompt in prompts:
        if prompt.sight is None:
            rows.append(_text_caches(language, prompt))
            shifts.append(0)
            logits = language(mx.array([prompt.tokens[-1:]]), rows[-1])
        else:
            media = MediaPrompt(language, prompt.tokens, prompt.sight, language.make_cache())
            media.look()
            _say_something_else(language)
            if media.left:
                media.advance(media.left)
                _say_something_else(language)
            logits = media.last_step(None, media.caches)
            rows.append(media.caches)
            shifts.append(media.shift)
        first.append(logits[:, -1:, :])
    batch: Any = _merge_caches(rows)  # type: ignore[no-untyped-call]
    steps = [mx.concatenate(first)]
    for _ in range(STEPS // width):
        tokens = mx.array([[_next(prompt)] * width for prompt in prompts])
        steps.append(language(tokens, batch, shifts))
    return list(_logprobs(mx.concatenate(steps, axis=1)))


def _say_something_else(language: Language) -> None:
    """Compute a token of another row, as may happen between the parts of a prompt."""
    mx.eval(language(mx.array([[3]]), language.make_cache()))


def _text_caches(language: Language, prompt: Prompt) -> list[Any]:
    """Return the caches of a text, but for its last token, as the batch computes it."""
    batch = PromptProcessingBatch(language, [0], [language.make_cache()])
    batch.prompt([prompt.tokens[:-1]])
    return batch.extract_cache(0)


def _logprobs(logits: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _apart(one: mx.array, other: mx.array) -> float:
    # Tokens that the model never says are at -inf.
    most: Any = mx.nan_to_num(mx.abs(one - other), nan=0.0).max().item()
    return float(most)
