"""Compute a model of mlx-vlm: its language model as if it were one of mlx-lm, and prompts with media in pieces.

After a prompt, with or without media, is in the caches, generating is a matter of text. So `worker.llm.batch` does it,
with mlx-lm's caches. Whether an architecture computes the same that way is tried when a model is loaded: `trial`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache
from mlx_vlm.generate.common import _chunked_prefill_enabled  # type: ignore[import-not-found]
from mlx_vlm.models import cache as mlx_vlm_caches  # type: ignore[import-not-found]

from localapi.worker.vlm.senses import Sight


class Language:
    """The language model of a model, called as mlx-lm's models are."""

    def __init__(self, model: Any) -> None:
        self.whole = model
        """The model with what it sees and hears with."""
        self._language = model.language_model
        self._shifts = hasattr(self._language, "_rope_deltas")

    def make_cache(self) -> list[Any]:
        """Return the caches of a row before its first token."""
        empty = mlx_vlm_caches.make_prompt_cache(self._language)
        return [_of_mlx_lm(cache) for cache in empty]

    def __call__(self, tokens: mx.array, cache: list[Any], shifts: Sequence[int] = ()) -> Any:
        """Return the logits (rows, tokens, vocabulary) after these tokens (rows, tokens).

        `shifts`: by how many places the positions of each row's tokens differ from their numbers, because an image
        takes another number of places than of tokens; none: rows of text.
        """
        further = {}
        if self._shifts:
            self.forget()
            further["rope_deltas"] = mx.array(list(shifts) or [0] * tokens.shape[0])[:, None]
            self._language._rope_deltas = further["rope_deltas"]  # where GLM-4V looks whether there are some
        return self._language(tokens, cache=cache, **further).logits

    def forget(self) -> None:
        """Have the architecture forget the positions of the prompt before."""
        if self._shifts:
            self._language._position_ids = self._language._rope_deltas = None

    def positions(self, prompt: list[int], sight: Sight) -> dict[str, Any]:
        """Return where the tokens are, for architectures whose images take another number of places than tokens."""
        find = getattr(self._language, "get_rope_index", None)
        if find is None:
            return {}
        positions, deltas = find(mx.array([prompt]), sight.others.get("image_grid_thw"))
        return {"position_ids": positions, "rope_deltas": deltas}

    def remembered(self) -> dict[str, Any]:
        """Return the same as some architectures remember it while they embed a prompt, which others' steps change."""
        found = {name: getattr(self._language, f"_{name}", None) for name in ("position_ids", "rope_deltas")}
        return {name: value for name, value in found.items() if value is not None}

    def shift(self, inputs: dict[str, Any]) -> int:
        """Return the shift of a row after its prompt. `inputs`: what the prompt was computed with."""
        deltas = inputs.get("rope_deltas")
        if deltas is None:
            deltas = getattr(self._language, "_rope_deltas", None) if self._shifts else None
        first: Any = 0 if deltas is None else mx.array(deltas).flatten()[0].item()
        return int(first)


def _of_mlx_lm(cache: Any) -> Any:
    """Return mlx-lm's cache of the same kind. Those of other kinds stay: architectures ask for their classes."""
    if type(cache) is mlx_vlm_caches.KVCache:
        return KVCache()  # type: ignore[no-untyped-call]
    if type(cache) is mlx_vlm_caches.RotatingKVCache:
        return RotatingKVCache(cache.max_size, cache.keep)  # type: ignore[no-untyped-call]
    return cache


class MediaPrompt:
    """A prompt with images and recordings while it is computed, as `mlx_vlm.generate.generate_step` does it."""

    def __init__(self, language: Language, prompt: list[int], sight: Sight, caches: list[Any], done: int = 0) -> None:
        """`done`: number of its tokens that are in the caches, through the last image or recording at least, or 0."""
        self.caches = caches
        self.done = done
        self.shift = 0
        """Shift of the row, as in `Language`, once the prompt is computed."""
        self._language = language
        self._prompt = prompt
        self._sight = sight
        self._inputs: dict[str, Any] = {}
        self._embedded: Any = None
        self._in_pieces = False

    @property
    def left(self) -> int:
        """Number of tokens that can be computed before the last step."""
        return len(self._prompt) - 1 - self.done if self._in_pieces else 0

    def look(self) -> None:
        """Take in the images and recordings. This cannot be done in pieces."""
        model, sight = self._language.whole, self._sight
        self._language.forget()
        if self.done:
            found = model.get_input_embeddings(mx.array([self._prompt[self.done :]]), None, mask=None)
            of_layers = getattr(found, "per_layer_inputs", None)
            if of_layers is not None:  # Gemma 3n and 4 count from the beginning
                found.per_layer_inputs = mx.pad(of_layers, [(0, 0), (self.done, 0), (0, 0), (0, 0)])
            inputs = self._language.positions(self._prompt, sight)
        else:
            found = model.get_input_embeddings(sight.input_ids, sight.pixel_values, mask=sight.mask, **sight.others)
            inputs = {**self._language.remembered(), **sight.others}
        of_embedding = {name: value for name, value in found.to_dict().items() if value is not None}
        self._embedded = of_embedding.pop("inputs_embeds")
        self._inputs = {**of_embedding, **inputs} if self.done else {**inputs, **of_embedding}
        self._in_pieces = _chunked_prefill_enabled(
            model,
            input_ids=mx.array([self._prompt[self.done :]]),
            inputs_embeds=self._embedded,
            prompt_cache=self.caches,
            prefill_kwargs=self._inputs,
        )
        mx.eval(self._embedded)

    def copy(self) -> MediaPrompt:
        """Return the same, with caches of its own."""
        copied = copy.copy(self)
        copied.caches = copy.deepcopy(self.caches)
        return copied

    def advance(self, tokens: int) -> None:
        """Compute so many of the tokens that are left."""
        self._compute(tokens, n_to_process=tokens)
        mx.eval([cache.state for cache in self.caches])
        mx.clear_cache()

    def last_step(self, _: Any, cache: list[Any]) -> Any:
        """Return the logits after the last token (1, tokens, vocabulary), called as a model. The rest is computed."""
        logits = self._compute(self._embedded.shape[1], cache)
        self.shift = self._language.shift(self._inputs)
        return logits

    def _compute(self, tokens: int, caches: list[Any] | None = None, **options: Any) -> Any:
        start = self.done
        embedded, self._embedded = self._embedded[:, :tokens], self._embedded[:, tokens:]
        inputs = {"logits_to_keep": 1, **options, **self._inputs}
        if (positions := inputs.get("position_ids")) is not None:
            inputs["position_ids"] = positions[..., start : start + tokens]
        outputs = self._language.whole.language_model(
            mx.array([self._prompt[start : start + tokens]]),
            inputs_embeds=embedded,
            cache=self.caches if caches is None else caches,
            **inputs,
        )
        self.done += tokens
        return outputs.logits
