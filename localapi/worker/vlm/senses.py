"""Turn a conversation with images and recordings into a model's input: tokens with room for them, and their content.

The chat template is rendered as for text, with a mark in place of each one. Then each mark becomes the text that the
model's own template writes for it, and its processor makes room for the content in the tokens. So everything that is
known of templates also holds for messages with images and recordings.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import itertools
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import mlx.core as mx
import msgspec
import numpy as np
from mlx_vlm.utils import prepare_inputs, should_add_special_tokens  # type: ignore[import-not-found]
from PIL import Image

from localapi.audio.decoder import NotAudio, decode
from localapi.worker.llm.prompt import RENDER_SECONDS, PromptRefused
from localapi.worker.llm.request_reading import Prompt, RequestReader
from localapi.worker.protocol import AudioPart, Chat, ImagePart, Message, TextPart, TextRequest, Tokenize
from localapi.worker.vlm.pictures import picture

_PROBE: Final = "sentinelqz"
"""Letters that no template escapes."""
_RATE_HZ: Final = 16_000
"""Sample rate for models that do not state theirs."""
_MOST_NUMBERS: Final = 16_384
"""Maximum number of combinations of files that are remembered."""
_LEAST_SECONDS: Final = 0.2
"""Minimum length to which a recording is padded with silence, because encoders fail on less than a few frames."""


@dataclass(frozen=True)
class Media:
    """Images and recordings of a text, in the order of its marks."""

    pictures: Sequence[Any]
    sounds: Sequence[Any]
    """Samples from -1 to 1, at the model's rate."""
    digests: tuple[str, ...]
    """Digests of the files."""


@dataclass(frozen=True)
class Sight:
    """Input of a model besides tokens."""

    input_ids: mx.array
    pixel_values: Any
    mask: Any
    others: Mapping[str, Any]
    """Further inputs of the architecture, such as the grid of each image."""
    media: tuple[str, ...]
    """Digests of the files of images and recordings."""
    end: int | None
    """Number of tokens through the last one that stands for an image or a recording; None if unknown."""
    key: list[int] = field(default_factory=list)
    """The tokens, with a negative number in the places of the files; empty if these are unknown."""


class Senses:
    """Processor of one model."""

    def __init__(self, processor: Any, config: Mapping[str, Any], tokenizer: Any, model: Any = None) -> None:
        """Create it from mlx-lm's TokenizerWrapper; without `model`, it is not tested whether the model hears."""
        self._processor = processor
        self._config = config
        self._adds = _added(tokenizer)
        self._numbers: dict[tuple[str, ...], int] = {}
        """Numbers by the digests of files."""
        self._next_number = itertools.count(-1, -1)
        extractor = getattr(processor, "feature_extractor", None)
        self.rate_hz = int(getattr(extractor, "sampling_rate", None) or _RATE_HZ)
        self._image = _placeholder(tokenizer, "image") or _token_of(processor, "image")
        self._audio = _placeholder(tokenizer, "audio") or _token_of(processor, "audio")
        self.longest_seconds = _longest_samples(extractor) / self.rate_hz
        """Maximum length of a recording for the processor, which drops the rest."""
        self.can_see = bool(self._image) and getattr(processor, "image_processor", None) is not None
        """True if the model accepts images."""
        self.can_hear = bool(self._audio) and extractor is not None and model is not None and self._hears(model)
        """True if recordings change the model's input."""

    def placeholder(self, part: ImagePart | AudioPart, number: int) -> str:
        """Return the text for an image or a recording in a prompt. Each kind is numbered from 1."""
        text = self._image if isinstance(part, ImagePart) else self._audio
        # Phi names the first one <|image_1|>, and the second one <|image_2|>.
        return re.sub(r"(?<=_)1(?=\|)", str(number), text)

    def taken_in(self, prompt: Prompt) -> Prompt:
        """Return a prompt of text and media as the model's input. Raise PromptRefused."""
        media: Media = prompt.media
        try:
            inputs = self._inputs(prompt.text, media)
            ids = inputs.pop("input_ids")
            ids = ids if isinstance(ids, mx.array) else mx.array(ids)
            mx.eval(ids)
        except Exception as error:  # from the processor, which refuses images that are too narrow, for example
            said = str(error).removeprefix("Failed to process inputs with error: ")[:200]
            what = " and ".join(
                name for name, found in (("images", media.pictures), ("recordings", media.sounds)) if found
            )
            raise PromptRefused(f"The model cannot process these {what}: {said or type(error).__name__}.") from error
        pixels, mask = inputs.pop("pixel_values", None), inputs.pop("attention_mask", None)
        tokens = cast("list[int]", ids.flatten().tolist())
        end = self._end(tokens, media)
        key = self._key(tokens, media) if end is not None else []
        return replace(prompt, tokens=tokens, sight=Sight(ids, pixels, mask, inputs, media.digests, end, key))

    def probes(self) -> list[tuple[Prompt, Prompt]]:
        """Return two short prompts that begin with the same image or recording, for each sense, to try the model."""
        noise, found = np.random.default_rng(1), []
        if self.can_see:
            pixels = noise.integers(0, 255, (48, 64, 3), np.uint8)
            found.append((self._image, Media([Image.fromarray(pixels)], (), ("probe",))))
        if self.can_hear:
            samples = noise.uniform(-0.5, 0.5, self.rate_hz // 2).astype(np.float32)
            found.append((self._audio, Media((), [samples], ("probe",))))
        rests = (" one two three four five six seven", " This is another one.")
        try:
            return [
                (
                    self.taken_in(Prompt([], mark + rests[0], media=media)),
                    self.taken_in(Prompt([], mark + rests[1], media=media)),
                )
                for mark, media in found
            ]
        except PromptRefused:
            return []

    def _inputs(self, text: str, media: Media) -> dict[str, Any]:
        kind = str(self._config.get("model_type") or "")
        # Some processors always add the first token, although templates write it too.
        doubled = bool(self._adds) and text.startswith(self._adds)

        def inputs(processor: Any) -> dict[str, Any]:
            return dict(
                prepare_inputs(
                    processor,
                    images=list(media.pictures) or None,
                    audio=list(media.sounds) or None,
                    prompts=text.removeprefix(self._adds),
                    image_token_index=self._token("image"),
                    add_special_tokens=doubled or should_add_special_tokens(kind, self._processor),
                )
            )

        try:
            return inputs(self._processor)
        except Exception:
            with contextlib.suppress(Exception):
                return inputs(_Unpadded(self._processor))
            raise

    def _token(self, medium: str) -> int | None:
        for name in (f"{medium}_token_index", f"{medium}_token_id"):
            found = self._config.get(name) or getattr(self._processor, name, None)
            if isinstance(found, int):
                return found
        return None

    def _end(self, tokens: list[int], media: Media) -> int | None:
        """Return the number of tokens through the last one of an image or a recording."""
        end = 0
        for medium, found in (("image", media.pictures), ("audio", media.sounds)):
            if not found:
                continue
            token = self._token(medium)
            if token is None or token not in tokens:
                return None
            end = max(end, len(tokens) - tokens[::-1].index(token))
        return end

    def _key(self, tokens: list[int], media: Media) -> list[int]:
        """Return the tokens, with a number for these files in the places of images and recordings.

        It stands for all of them, because a prompt cannot go on from a part of its media.
        """
        if len(self._numbers) > _MOST_NUMBERS:  # no number is used twice, so no other file is taken for one of these
            self._numbers.clear()
        if media.digests not in self._numbers:
            self._numbers[media.digests] = next(self._next_number)
        number = self._numbers[media.digests]
        stand_in = {self._token("image"), self._token("audio")}
        return [number if token in stand_in else token for token in tokens]

    def _hears(self, model: Any) -> bool:
        """Return True if the model's input for noise differs from that for silence. This is tested."""
        silence = np.zeros(self.rate_hz // 2, np.float32)
        noise = np.random.default_rng(1).uniform(-0.5, 0.5, silence.size).astype(np.float32)
        taken = []
        try:
            for sound in (silence, noise):
                sight = self.taken_in(Prompt([], self._audio, media=Media((), [sound], ()))).sight
                embedded = model.get_input_embeddings(
                    sight.input_ids, sight.pixel_values, mask=sight.mask, **sight.others
                )
                taken.append(embedded.inputs_embeds.astype(mx.float32))
            return taken[0].shape != taken[1].shape or not bool(mx.allclose(*taken).item())
        except Exception:  # from the processor or the architecture
            return False


class _Unpadded:
    """A processor that is not told how to pad one prompt: mlx-vlm's for LLaVA tells it to one for images, too."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, *arguments: Any, padding: object = None, **options: Any) -> Any:
        """Return the inputs of one prompt."""
        return self._processor(*arguments, **options)


def _added(tokenizer: Any) -> str:
    """Return the token that the tokenizer puts before every text; empty if it adds none."""
    first = tokenizer.bos_token
    return str(first) if first and tokenizer.encode("a")[:1] == [tokenizer.bos_token_id] else ""


def _token_of(processor: Any, medium: str) -> str:
    return str(getattr(processor, f"{medium}_token", None) or "")


def _longest_samples(extractor: Any) -> float:
    """Return the samples that a feature extractor takes, as it is called without a maximum."""
    # Whisper's extractor, and all others of transformers that pad to one length.
    samples = getattr(extractor, "n_samples", None)
    if samples is None and callable(extractor):
        parameters = inspect.signature(extractor).parameters
        if "truncation" in parameters and parameters["truncation"].default is True:
            samples = parameters["max_length"].default
    return float(samples) if samples else float("inf")


def _placeholder(tokenizer: Any, medium: str) -> str:
    """Return the template's text for an image or a recording before a text; empty if it has none."""

    def rendered(*parts: dict[str, str]) -> str:
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": _PROBE}]}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))

    try:
        with_it, without = rendered({"type": medium}), rendered()
    except Exception:  # templates raise any exception
        return ""
    before = without.partition(_PROBE)[0]
    found = with_it.partition(_PROBE)[0]
    return found[len(before) :] if found.startswith(before) else ""


class SensingReader(RequestReader):
    """Reader of requests with images and recordings. They are decoded here, possibly on a separate thread."""

    def __init__(self, *arguments: Any, senses: Senses, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._senses = senses

    def read(self, request: TextRequest, seconds: float = RENDER_SECONDS) -> Prompt:
        """Return the prompt. A prompt with media includes them and its text, and `Senses.taken_in` makes its tokens."""
        chat = request.chat if isinstance(request, Tokenize) else request
        parts = media_of(chat) if isinstance(chat, Chat) else []
        if not isinstance(chat, Chat) or not parts:
            return super().read(request, seconds)
        self.check_form(request)
        if not self._senses.can_see and any(isinstance(part, ImagePart) for part in parts):
            raise PromptRefused("This model does not accept images. Remove them.")
        if not self._senses.can_hear and any(isinstance(part, AudioPart) for part in parts):
            raise PromptRefused("This model does not accept recordings. Remove them.")
        marked, marks = _marked(chat)
        text = self._prompts.text(marked, self._check_text, seconds=seconds)
        counts = {ImagePart: 0, AudioPart: 0}
        images = sum(isinstance(part, ImagePart) for part in parts)
        pictures: list[Any] = []
        sounds: list[Any] = []
        digests = []
        for part, mark in zip(parts, marks, strict=True):
            if text.count(mark) != 1:
                raise PromptRefused(
                    "The model's chat template drops an image or a recording. Put it into a user message."
                )
            counts[type(part)] += 1
            text = text.replace(mark, self._senses.placeholder(part, counts[type(part)]))
            if isinstance(part, ImagePart):
                pictures.append(picture(part.data or b"", part.detail, count=images))
            else:
                sounds.append(_sound(part, self._senses))
            digests.append(_digest(part))
        return Prompt([], text, media=Media(pictures, sounds, tuple(digests)))


def media_of(chat: Chat) -> list[ImagePart | AudioPart]:
    """Return the images and recordings of a conversation, in order."""
    contents = [message.content for message in chat.messages if not isinstance(message.content, str)]
    return [part for content in contents for part in content if not isinstance(part, TextPart)]


def _sound(part: AudioPart, senses: Senses) -> Any:
    """Return the samples of a recording. Raise PromptRefused."""
    seconds = min(part.max_seconds, senses.longest_seconds)
    try:
        pcm = decode(part.data, sample_rate_hz=senses.rate_hz, max_seconds=seconds, max_bytes=len(part.data))
    except NotAudio as error:
        raise PromptRefused(f"A recording cannot be used. {error}") from None
    samples = np.frombuffer(pcm, np.int16).astype(np.float32) / 32768
    return np.pad(samples, (0, max(0, int(_LEAST_SECONDS * senses.rate_hz) - samples.size)))


def _digest(part: ImagePart | AudioPart) -> str:
    detail = part.detail if isinstance(part, ImagePart) else "audio"
    return f"{hashlib.sha256(part.data or b'').hexdigest()} {detail}"


def _marked(chat: Chat) -> tuple[Chat, list[str]]:
    """Return the conversation with marks in place of images and recordings, and the marks, which no client can know."""
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
                else:
                    marks.append(f"media{secret}n{len(marks)}z")
                    text += marks[-1]
                before = part
            content = text
        messages.append(msgspec.structs.replace(message, content=content))
    return msgspec.structs.replace(chat, messages=messages), marks
