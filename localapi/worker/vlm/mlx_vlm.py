"""Chat with mlx-vlm: text, images and recordings. Prompts, sampling, forms and output are those of `worker.llm`."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_vlm.models.cache import make_prompt_cache  # type: ignore[import-not-found]
from mlx_vlm.utils import load_config, load_image_processor, load_model, load_processor  # type: ignore[import-not-found]

from localapi.worker.hub.repository import located
from localapi.worker.llm.answering import Answerer, TextSide
from localapi.worker.llm.constrained.vocabulary import VocabularyIndex
from localapi.worker.llm.kv_memory import KVMemory, measure_footprint, spare_bytes
from localapi.worker.llm.mlx_lm import MEGABYTE, trained_context
from localapi.worker.llm.prefix_cache.cache import PrefixCache
from localapi.worker.llm.prompt import NO_TEMPLATE_NOTE
from localapi.worker.llm.request_reading import Prompt
from localapi.worker.llm.speculation.speculation import Speculation
from localapi.worker.llm.weights import check_weights, logits_width, read_tokenizer, read_weights
from localapi.worker.model import CannotLoad, Host, first_line, read_object
from localapi.worker.own_code import check_own_code, refuse_own_code
from localapi.worker.protocol import Event, Loaded, Loading, TextRequest
from localapi.worker.vlm.language import Language
from localapi.worker.vlm.lone_answers import LoneAnswers
from localapi.worker.vlm.media_batch import MediaBatch
from localapi.worker.vlm.senses import Senses, SensingReader
from localapi.worker.vlm.trial import tried

PATTERNS = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "model*.safetensors"]
LONE_NOTE = "mlx-vlm answers requests one after the other, and no prompts are cached."


def load(options: dict[str, Any], host: Host) -> MlxVlm:
    """Return the model of an entry's options. Raise CannotLoad."""
    path = options["path"]
    folder = located(path, options.get("revision"), host.report, patterns=PATTERNS)
    total = sum(check_weights(folder, path))
    host.report(Loading("reading weights", 0, total))
    check_own_code(folder, read_object(folder / "config.json"), "mlx-vlm")
    refuse_own_code()
    try:
        model = load_model(folder, lazy=True)
        processor = load_processor(folder, add_detokenizer=False)
        images = load_image_processor(folder)
        config: dict[str, Any] = load_config(folder)
    except Exception as error:  # from mlx-vlm, transformers, MLX or the architecture
        version = importlib.metadata.version("mlx-vlm")
        raise CannotLoad(f"mlx-vlm {version} cannot load the model in {folder}: {first_line(error)}.") from error
    if not hasattr(model, "language_model"):
        raise CannotLoad(f"The model in {folder} ({config.get('model_type')}) does not generate text.")
    if images is not None:
        processor.image_processor = images
    for done in read_weights(model):
        host.report(Loading("reading weights", min(done, total), total))
    tokenizer = read_tokenizer(folder, config, template=getattr(processor, "chat_template", None))
    return MlxVlm(model, processor, tokenizer, config, options, host=host)


class MlxVlm(Answerer):
    """One model of mlx-vlm. See `worker.model.Model`."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        tokenizer: Any,
        config: dict[str, Any],
        options: dict[str, Any],
        *,
        host: Host,
    ) -> None:
        """Load a model from the entry's identity, as in `backends.mlx_vlm`. Raise CannotLoad."""
        text = TextSide(tokenizer, config, options, VocabularyIndex(tokenizer, logits_width(config, tokenizer)))
        self._senses = Senses(processor, config, tokenizer, model)
        context_length = options.get("context_length") or trained_context(config)
        findings = tried(model, self._senses.probes())
        together = findings.together
        max_rows = options.get("max_batch", 32)
        prefix_bytes = options.get("prefix_cache_mb", 1024) * MEGABYTE if together else 0
        batch: MediaBatch | LoneAnswers
        if together:
            language = Language(model)
            max_stall_seconds = options.get("max_stall_ms", 100) / 1000
            batch = MediaBatch(
                language,
                continues_media=findings.continues_media,
                stop_tokens=text.stop_tokens,
                max_rows=max_rows,
                max_stall_seconds=max_stall_seconds,
                prefixes=PrefixCache(language.make_cache(), max_bytes=prefix_bytes),
                token_bytes=text.detokenizer.token_bytes,
                speculation=Speculation(text.width, max_stall_seconds),
            )
        else:
            batch = LoneAnswers(
                model,
                stop_tokens=text.stop_tokens,
                max_rows=max_rows,
                token_bytes=text.detokenizer.token_bytes,
                cancelled=host.cancelled,
            )
        notes = [*([] if together else [LONE_NOTE]), *([] if text.prompts.has_template else [NO_TEMPLATE_NOTE])]
        facts = Loaded(context_length=context_length, notes=notes, batched=together)
        facts.capabilities = text.capabilities(vision=self._senses.can_see, hearing=self._senses.can_hear)
        self._reader = SensingReader(
            tokenizer,
            text.prompts,
            name=Path(options["path"]).name,
            context_length=context_length,
            needs_boundaries=batch.prefixes.needs_boundaries,
            senses=self._senses,
        )
        memory = _memory(model, options.get("kv_cache_mb"), prefix_bytes, together=together)
        super().__init__(text, self._reader, batch, loaded=facts, memory=memory, max_rows=max_rows, wake=host.wake)

    def _start(self, request: TextRequest, prompt: Prompt, events: list[Event]) -> None:
        if prompt.media is not None:
            prompt = self._senses.taken_in(prompt)
            self._reader.check_length(prompt.tokens)
        super()._start(request, prompt, events)


def _memory(model: Any, limit_mb: int | None, reserved: int, *, together: bool) -> KVMemory:
    """Return the memory limit for responses. `reserved` is in bytes. Raise CannotLoad if the model cannot compute."""

    def run(tokens: mx.array, caches: list[Any]) -> None:
        embedded = model.get_input_embeddings(tokens, None)
        further = {name: each for name, each in embedded.to_dict().items() if each is not None}
        outputs = model.language_model(tokens, cache=caches, **further)
        mx.eval(outputs.logits)

    try:
        footprint = measure_footprint(make_prompt_cache(model.language_model), run)
    except Exception as error:  # from the architecture
        raise CannotLoad(f"The model was read but cannot compute: {first_line(error)}.") from error
    max_bytes = limit_mb * MEGABYTE if limit_mb else spare_bytes(reserved)
    return KVMemory(footprint, max_bytes, together=together, said=bool(limit_mb))
