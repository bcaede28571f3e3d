"""Turn a conversation with images into what a vision model takes: tokens with room for each picture, and the pictures.

The chat template is rendered as for text, with a mark in the place of each image. Afterwards the marks become the text
that the model's own template writes for an image, and its processor makes room for the picture in the tokens. So all
that is known of templates holds for messages with images, too.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import msgspec
from mlx_vlm.utils import prepare_inputs, should_add_special_tokens  # type: ignore[import-not-found]

from localapi.worker.llm.prompt import RENDER_SECONDS, PromptRefused
from localapi.worker.llm.request_reading import Prompt, RequestReader
from localapi.worker.protocol import Chat, ImagePart, Message, TextPart, TextRequest, Tokenize
from localapi.worker.vlm.pictures import picture

_PROBE = "sentinelqz"
"""Letters that no template escapes."""


@dataclass(frozen=True)
class Sight:
    """Input of a model beside tokens."""

    input_ids: mx.array
    pixel_values: Any
    mask: Any
    others: Mapping[str, Any]
    """Further inputs of the architecture, such as the grid of each picture."""
    pictures: tuple[str, ...]
    """Digests of the images' files."""
    end: int | None
    """Number of tokens through the last one that stands for a picture; None if that is not known."""


class Eyes:
    """The processor of one model."""

    def __init__(self, processor: Any, config: Mapping[str, Any], tokenizer: Any) -> None:
        """`tokenizer`: mlx-lm's TokenizerWrapper."""
        self._processor = processor
        self._config = config
        self.placeholder = _placeholder(tokenizer) or str(getattr(processor, "image_token", None) or "")
        """Text of an image in a prompt; empty if the model's template has none."""

    @property
    def can_see(self) -> bool:
        """True if images can be shown to the model."""
        return bool(self.placeholder) and getattr(self._processor, "image_processor", None) is not None

    def seen(self, prompt: Prompt) -> Prompt:
        """Return a prompt of text and pictures as the model takes it. Raise PromptRefused."""
        kind = str(self._config.get("model_type") or "")
        index = self._config.get("image_token_index") or self._config.get("image_token_id")
        try:
            inputs = dict(
                prepare_inputs(
                    self._processor,
                    images=list(prompt.pictures),
                    prompts=prompt.text,
                    image_token_index=index,
                    add_special_tokens=should_add_special_tokens(kind, self._processor) and not prompt.tokens,
                )
            )
            ids = inputs.pop("input_ids")
            mx.eval(ids)
        except Exception as error:  # from the processor, which refuses pictures that are too narrow, for example
            said = str(error).removeprefix("Failed to process inputs with error: ")[:200]
            raise PromptRefused(f"The model cannot take these images: {said or type(error).__name__}.") from error
        pixels, mask = inputs.pop("pixel_values", None), inputs.pop("attention_mask", None)
        tokens: list[int] = ids.flatten().tolist()
        return replace(
            prompt, tokens=tokens, sight=Sight(ids, pixels, mask, inputs, prompt.digests, _end(tokens, index))
        )


def _end(tokens: list[int], index: int | None) -> int | None:
    """Return the number of tokens through the last one of a picture."""
    if index is None or index not in tokens:
        return None
    return len(tokens) - tokens[::-1].index(index)


def _placeholder(tokenizer: Any) -> str:
    """Return what the template writes for an image before a text; empty if it knows no images."""

    def rendered(*parts: dict[str, str]) -> str:
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": _PROBE}]}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))

    try:
        with_image, without = rendered({"type": "image"}), rendered()
    except Exception:  # whatever a template raises
        return ""
    before = without.partition(_PROBE)[0]
    found = with_image.partition(_PROBE)[0]
    return found[len(before) :] if found.startswith(before) else ""


class SeeingReader(RequestReader):
    """Read requests that may have images. Their files are decoded here, which may be on a thread of its own."""

    def __init__(self, *arguments: Any, eyes: Eyes, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._eyes = eyes

    def read(self, request: TextRequest, seconds: float = RENDER_SECONDS) -> Prompt:
        """Return the prompt. One with images has its text and pictures, and `Eyes.seen` makes its tokens."""
        chat = request.chat if isinstance(request, Tokenize) else request
        if not isinstance(chat, Chat) or not images_of(chat):
            return super().read(request, seconds)
        self.check_form(request)
        if not self._eyes.can_see:
            raise PromptRefused("This model reads no images. Leave them out.")
        marked, marks = _marked(chat)
        text = self._prompts.text(marked, self._check_text, seconds=seconds)
        for mark in marks:
            if text.count(mark) != 1:
                raise PromptRefused("The model's chat template leaves out an image. Put it into a message of the user.")
            text = text.replace(mark, self._eyes.placeholder)
        images = images_of(chat)
        return Prompt(
            [],
            text,
            pictures=[picture(image.data or b"", image.detail) for image in images],
            digests=tuple(f"{hashlib.sha256(image.data or b'').hexdigest()} {image.detail}" for image in images),
        )


def images_of(chat: Chat) -> list[ImagePart]:
    """Return the images of a conversation in their order."""
    contents = [message.content for message in chat.messages if not isinstance(message.content, str)]
    return [part for content in contents for part in content if isinstance(part, ImagePart)]


def _marked(chat: Chat) -> tuple[Chat, list[str]]:
    """Return the conversation with a mark in the place of each image, and the marks. No client can know them."""
    secret = secrets.token_hex(8)
    marks: list[str] = []
    messages: list[Message] = []
    for message in chat.messages:
        content = message.content
        if not isinstance(content, str):
            text, before = "", None
            for part in content:
                if isinstance(part, TextPart):
                    text += ("\n" if isinstance(before, TextPart) else "") + part.text
                elif isinstance(part, ImagePart):
                    marks.append(f"image{secret}n{len(marks)}z")
                    text += marks[-1]
                before = part
            content = text
        messages.append(msgspec.structs.replace(message, content=content))
    return msgspec.structs.replace(chat, messages=messages), marks
