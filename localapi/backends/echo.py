"""The backend echo: answers inside the server without a model, to try the API and to test clients.

Chat repeats the last user message word by word; a completion repeats its prompt. Speech is a tone as long as the text
would take, a transcript reports the length of the audio, and vectors count words.
"""

from __future__ import annotations

import asyncio
import math
import re
import zlib
from array import array
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from pydantic import Field

from localapi.audio.decoder import Decoded, NotAudio, decode_file
from localapi.audio.tone import tone
from localapi.backends.engine import Engine, InProcessEngine, ReportLoading
from localapi.backends.image_options import SeeingOptions
from localapi.backends.parameters import FORMS, MEDIA, TEXT
from localapi.backends.speech import SpeechOptions
from localapi.backends.transcription import TranscriptionOptions
from localapi.backends.vector_options import EmbeddingOptions, RerankOptions
from localapi.errors import InvalidRequest
from localapi.images.header import read_header
from localapi.text.writing_systems import weight
from localapi.worker.protocol import (
    AudioPart,
    Capabilities,
    Chat,
    Complete,
    Delta,
    Detokenize,
    DetokenizedText,
    Embed,
    Embedded,
    Ended,
    Event,
    Finished,
    Heard,
    ImagePart,
    Listening,
    Loaded,
    Message,
    Ranked,
    Request,
    Rerank,
    Sound,
    Speak,
    Spoken,
    TextPart,
    Tokenize,
    TokenizedText,
    TokenLogprob,
    Transcribe,
    Transcribed,
    TranscriptSegment,
    WordTime,
)

NOTHING_BUT_TEXT: Final = Capabilities(
    tools=False, forced_tools=False, json_schema=False, thinking=False, thinking_switch=False, thinking_levels=False,
    vision=False, hearing=False,
)  # fmt: skip


class Echo(SeeingOptions):
    """Options of a chat model that repeats the last user message."""

    honours = (TEXT | MEDIA) - FORMS - {"tool_choice"}
    backend: Annotated[Literal["echo"], Field(description="No model: repeats the last message, to try clients.")]
    media: Annotated[
        list[Literal["image", "audio"]],
        Field(
            description="Media that messages may contain besides text. The response reports their number and sizes.",
            examples=[["image"]],
        ),
    ] = []

    def expected(self) -> Capabilities:
        return msgspec.structs.replace(NOTHING_BUT_TEXT, vision="image" in self.media, hearing="audio" in self.media)

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoEngine(self.expected())


class EchoEngine(InProcessEngine):
    """Engine that counts one token per word, or one per character in tokenize and detokenize."""

    def __init__(self, capabilities: Capabilities = NOTHING_BUT_TEXT) -> None:
        super().__init__()
        self._loaded = Loaded(capabilities=capabilities)

    @property
    def loaded(self) -> Loaded:
        return self._loaded

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """Repeat the prompt. Honour `stop`, `max_tokens`, `n` and logprobs; sampling has no effect."""
        match request:
            case Tokenize():
                messages = request.chat.messages if request.chat else []
                text = request.text or "\n".join(_said(message) for message in messages)
                yield TokenizedText(request.id, [ord(character) for character in text])
            case Detokenize():
                yield DetokenizedText(request.id, _characters(request.tokens))
            case Chat() | Complete():
                for event in _echo(request):
                    yield event
                    await asyncio.sleep(0)
            case _:
                raise InvalidRequest("This model answers with text: use POST /v1/chat/completions.")


def _echo(request: Chat | Complete) -> Iterator[Event]:
    prompt, text, prompt_tokens = _read(request)
    answer, stop_string = _cut(text, request.stop)
    words = _words(answer)
    most = len(words) if request.max_tokens is None else request.max_tokens
    for choice in range(request.n):
        if isinstance(request, Complete) and request.echo:
            yield Delta(request.id, prompt, choice)
        for word in words[:most]:
            named = [] if request.top_logprobs is None else [TokenLogprob(word.encode(), 0.0)]
            yield Delta(request.id, word, choice, logprobs=named)
        if most < len(words):
            yield Ended(request.id, choice, "length")
        else:
            yield Ended(request.id, choice, "stop", stop_string)
    said = min(most, len(words)) + (stop_string is not None and most >= len(words))
    yield Finished(request.id, prompt_tokens, said * request.n)


def _read(request: Chat | Complete) -> tuple[str, str, int]:
    """Return the prompt, the response, and the number of prompt tokens."""
    if isinstance(request, Complete):
        prompt = request.prompt if isinstance(request.prompt, str) else _characters(request.prompt)
        return prompt, prompt, len(_words(prompt))
    users = (_said(message) for message in reversed(request.messages) if message.role == "user")
    tokens = sum(len(_words(_said(message))) for message in request.messages)
    return "", next(users, ""), tokens


def _said(message: Message) -> str:
    """Return the text of a message, with a line about each image and recording: `[image 1: png, 640x480]`."""
    if isinstance(message.content, str):
        return message.content
    lines: list[str] = []
    images = recordings = 0
    for part in message.content:
        match part:
            case TextPart():
                lines.append(part.text)
            case ImagePart():
                images += 1
                header = read_header(part.data or b"")
                detail = f", detail {part.detail}" if part.detail else ""
                lines.append(f"[image {images}: {header.format}, {header.width}x{header.height}{detail}]")
            case AudioPart():
                recordings += 1
                lines.append(f"[audio {recordings}: {part.format}, {len(part.data)} bytes]")
    return "\n".join(lines)


def _characters(tokens: list[int]) -> str:
    try:
        text = "".join(map(chr, tokens))
        text.encode()  # surrogates are not characters
    except (ValueError, OverflowError) as error:
        raise InvalidRequest("Tokens of the echo backend are Unicode code points.", param="tokens") from error
    return text


def _words(text: str) -> list[str]:
    """Split the text before each word; the parts joined are the text."""
    return re.findall(r"\s*\S+|\s+$", text)


def _cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Return the text before the first stop string, and that stop string."""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    at, stop = min(found)
    return text[:at], stop


CHARACTERS_PER_SECOND = 15
"""Rate of unhurried English speech."""
TONE_HZ = 24_000
SHORTEST_SECONDS = 0.1


class EchoSpeech(SpeechOptions):
    """Options of a voice that plays a tone. It accepts every parameter; only the speed has an effect."""

    backend: Annotated[
        Literal["echo"], Field(description="No model: plays a tone as long as the text would take, to try clients.")
    ]
    has_speed = True
    takes = frozenset({"ref_audio", "ref_text", "instruct_text", "source_audio"})

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoSpeechEngine()


class EchoSpeechEngine(InProcessEngine):
    """Engine that plays one tone for each segment."""

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if not isinstance(request, Speak):
            raise InvalidRequest("This is a speech model: use POST /v1/audio/speech.")
        for index, segment in enumerate(request.segments):
            seconds = max(SHORTEST_SECONDS, weight(segment) / CHARACTERS_PER_SECOND) / request.speed
            for pcm in tone(seconds, TONE_HZ):
                yield Sound(request.id, index, pcm, TONE_HZ)
                await asyncio.sleep(0)
        yield Spoken(request.id)


SEGMENT_SECONDS: Final = 10.0
SOUND_HZ: Final = 16_000
BYTES_PER_SECOND: Final = 2 * SOUND_HZ
SEGMENT_BYTES: Final = int(SEGMENT_SECONDS * BYTES_PER_SECOND)


class EchoTranscription(TranscriptionOptions):
    """Options of a model that reports the length of the audio, every ten seconds."""

    backend: Annotated[Literal["echo"], Field(description="No model: reports the length of the audio, to try clients.")]

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoTranscriptionEngine()


class EchoTranscriptionEngine(InProcessEngine):
    """Engine that decodes a file piece by piece, in threads."""

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        if not isinstance(request, Transcribe):
            raise InvalidRequest("This is a transcription model: use POST /v1/audio/transcriptions.")
        sound = _Sound(decode_file(Path(request.path), sample_rate_hz=SOUND_HZ, max_seconds=request.max_seconds))
        done, seconds = 0.0, SEGMENT_SECONDS
        try:
            while seconds == SEGMENT_SECONDS:
                seconds = await asyncio.to_thread(sound.next_seconds)
                if seconds:
                    yield Heard(request.id, [_segment(done, done + seconds, request)])
                    done += seconds
                    yield Listening(request.id, done, sound.total_seconds)
        except NotAudio as error:
            raise InvalidRequest(str(error), param="file") from error
        yield Transcribed(request.id, round(done, 3), request.language or "en")


class _Sound:
    """Audio of a file in segments, of which only the length counts."""

    def __init__(self, decoded: Iterator[Decoded]) -> None:
        self._decoded = decoded
        self._bytes = 0
        """Bytes that are decoded, but not part of a segment yet."""
        self.total_seconds = 0.0

    def next_seconds(self) -> float:
        """Return the length of the next segment; only the last one is shorter than the others. Blocks."""
        while self._bytes < SEGMENT_BYTES:
            piece = next(self._decoded, None)
            if piece is None:
                return self._bytes / BYTES_PER_SECOND
            self._bytes += len(piece.pcm)
            self.total_seconds = piece.total_seconds
        self._bytes -= SEGMENT_BYTES
        return SEGMENT_SECONDS


def _segment(start: float, end: float, request: Transcribe) -> TranscriptSegment:
    said = ["Sound", "from", f"{start:.1f}", "to", f"{end:.1f}", "seconds."]
    words = []
    if request.words:
        each = (end - start) / len(said)
        for at, word in enumerate(said):
            words.append(WordTime(word, round(start + at * each, 3), round(start + (at + 1) * each, 3)))
    text = " " + " ".join(said)
    return TranscriptSegment(start_seconds=round(start, 3), end_seconds=round(end, 3), text=text, words=words)


VectorBackend = Annotated[Literal["echo"], Field(description="No model: counts words, to try clients.")]
VECTOR_SIZE = 256


class EchoEmbedding(EmbeddingOptions):
    """Options of an embedding model that counts words."""

    backend: VectorBackend

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoVectorEngine()


class EchoRerank(RerankOptions):
    """Options of a model that scores documents by the words that they share with the query."""

    backend: VectorBackend

    async def start(self, name: str, report: ReportLoading) -> Engine:
        return EchoVectorEngine()


class EchoVectorEngine(InProcessEngine):
    """Engine that counts one token per word."""

    @property
    def loaded(self) -> Loaded:
        return Loaded(dimensions=VECTOR_SIZE)

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        match request:
            case Embed():
                texts = [words(each) for each in request.inputs]
                vectors = [vector(each, request.dimensions or VECTOR_SIZE).tobytes() for each in texts]
                yield Embedded(request.id, vectors, sum(map(len, texts)))
            case Rerank():
                query = vector(words(request.query), VECTOR_SIZE)
                documents = [words(each) for each in request.documents]
                scores = [
                    max(0.0, sum(a * b for a, b in zip(query, vector(each, VECTOR_SIZE), strict=True)))
                    for each in documents
                ]
                tokens = sum(map(len, documents)) + len(words(request.query)) * len(documents)
                yield Ranked(request.id, scores, tokens)
            case _:
                raise InvalidRequest("This model makes vectors: use POST /v1/embeddings or POST /v1/rerank.")


def words(text: str | list[int]) -> list[str]:
    """Return the words of a text in lower case, or its tokens as words."""
    return re.findall(r"\w+", text.lower()) if isinstance(text, str) else [str(token) for token in text]


def vector(said: list[str], size: int) -> array[float]:
    """Return a vector of length 1; for a text without words, the first unit vector."""
    counts = array("f", bytes(4 * size))
    for word in said:
        counts[zlib.crc32(word.encode("utf-8", "surrogatepass")) % size] += 1
    if not said:
        counts[0] = 1
    length = math.sqrt(sum(each * each for each in counts))
    return array("f", (each / length for each in counts))
