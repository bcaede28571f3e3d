"""The messages between server and worker, and how they are framed.

A frame is a length (4 bytes, big-endian) and that many bytes of msgpack. The structs know nothing of HTTP, YAML or of
any engine; OpenAI's words are used where OpenAI has a word. The echo engine, which lives in the server, speaks the same
structs without the frames.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final, Literal

import msgspec

LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 256 * 1024 * 1024


class Rank(msgspec.Struct, frozen=True):
    """A worker's place among those that hold one model together. Rank 0 decides, the others follow."""

    number: int
    addresses: list[str]
    """Where each rank listens for the other ranks: "127.0.0.1:4000"."""
    plans: str
    """Where rank 0 listens for the connections over which it sends its plans."""
    secret: bytes
    """What a rank must show on such a connection."""
    own_gpus: int | None = None
    """GPUs that a cluster gave to each rank; None: the ranks share those of their machine."""


class LoadModel(msgspec.Struct, tag=True):
    """Server to worker, once and first: what to load."""

    engine: str
    """Name of the backend, as listed in `localapi.worker.__main__`: "mlx-lm"."""
    options: dict[str, Any]
    """The entry's identity as the backend's options: plain values, with absolute paths."""
    rank: Rank | None = None
    """None: this worker holds the whole model."""


class Sampling(msgspec.Struct, frozen=True):
    """How the next token is chosen. None if neither the client nor the manifest sets it: the engine decides."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """0: all tokens."""
    min_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A paragraph of a message."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """A picture in a message."""

    url: str
    """A data: URL that holds it, or its address, which the server does not fetch."""
    detail: str | None = None
    """How closely to look at it, in OpenAI's words."""


class AudioPart(msgspec.Struct, frozen=True, tag="audio"):
    """A recording in a message."""

    data: bytes
    """An audio file."""
    format: str
    """Of the file: "wav", "mp3"."""


Part = TextPart | ImagePart | AudioPart


class FunctionCall(msgspec.Struct, frozen=True):
    """A call that the model made on an earlier turn."""

    id: str
    name: str
    arguments: str | dict[str, Any] = ""
    """Whatever the model wrote, JSON or not; some clients send the object that it is."""


class Message(msgspec.Struct, frozen=True):
    """A turn of a conversation."""

    role: str
    """system, developer, user, assistant or tool."""
    content: str | list[Part] = ""
    name: str | None = None
    reasoning: str | None = None
    """What the model thought on that turn."""
    calls: list[FunctionCall] = []
    call_id: str | None = None
    """The call that a message of the role tool is the result of."""

    @property
    def text(self) -> str:
        """Return the text of the message. Parts are paragraphs: what is not meant to touch is sent in parts."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class FunctionTool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of its arguments."""
    strict: bool | None = None
    """True if the arguments must match the schema."""


class JsonSchema(msgspec.Struct, frozen=True, tag=True):
    """JSON that this schema allows."""

    schema: str
    """The schema as JSON, with its keys in the user's order: answers name properties in that order."""
    strict: bool = False
    """True if objects are closed, and a schema that cannot be enforced exactly is refused; otherwise it is relaxed."""


class JsonObject(msgspec.Struct, frozen=True, tag=True):
    """Any JSON object."""


class Regex(msgspec.Struct, frozen=True, tag=True):
    """Text that this regular expression matches as a whole."""

    pattern: str


class Lark(msgspec.Struct, frozen=True, tag=True):
    """Text of this grammar, in llguidance's dialect of Lark."""

    text: str


Form = JsonSchema | JsonObject | Regex | Lark
"""What an answer must look like."""


class Answering(msgspec.Struct, kw_only=True):
    """What chat and completion requests have in common."""

    id: int
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None: until the model stops or its context is full."""
    stop: list[str] = []
    n: int = 1
    """Number of answers to the prompt."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens to report with each token's log probability; None: no log probabilities."""
    form: Form | None = None
    original: dict[str, Any] | None = None
    """The body in OpenAI's form, with the manifest's values, for an engine that forwards it to another server."""


class Chat(Answering, tag=True, kw_only=True):
    """Server to worker: continue this conversation."""

    messages: list[Message]
    tools: list[FunctionTool] = []
    tool_choice: Literal["none", "auto", "required"] = "auto"
    tool_name: str | None = None
    """The one function that must be called; tool_choice is "required" then."""
    parallel_tool_calls: bool = True
    template_options: dict[str, Any] = {}
    """Variables for the chat template."""
    continues: bool = False
    """True if the last message is the beginning of the answer, which continues it."""


class Complete(Answering, tag=True, kw_only=True):
    """Server to worker: continue this text."""

    prompt: str | list[int]
    echo: bool = False
    """True if the answer begins with the prompt."""


def form_param(request: Answering) -> str:
    """Return the request's field that asks for a form, or for a call, which is one too."""
    match request.form:
        case Regex():
            return "regex"
        case Lark():
            return "grammar"
        case None:
            required = isinstance(request, Chat) and request.tool_choice == "required"
            return "tool_choice" if required else "tools"
        case _:
            return "response_format"


class Tokenize(msgspec.Struct, tag=True):
    """Server to worker: return the tokens of a text, or of a conversation as the model would read it."""

    id: int
    text: str | None = None
    chat: Chat | None = None
    """The conversation, with its tools and template variables."""
    special: bool = True
    """True if the tokens that begin and end a text are added, and special tokens in it are read as such."""


class Detokenize(msgspec.Struct, tag=True):
    """Server to worker: return the text of tokens."""

    id: int
    tokens: list[int]


PHONEMES = ("\ue000", "\ue001")
"""Characters around IPA phonemes in a text, for engines that read them. Texts of clients hold neither."""


class Speak(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: speak this text."""

    id: int
    segments: list[str]
    """The text, split at natural pauses: one segment is heard while the next is generated."""
    voice: str | None = None
    """The engine's own name of the voice; None: its default."""
    speed: float = 1.0
    """1 for engines without a speed of their own: the server changes the tempo of their sound."""
    options: dict[str, Any] = {}
    """Further fields of the request, by the backend's names (`ref_audio` as the bytes of an audio file)."""
    times: bool = False
    """True if the times of words are wanted."""


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a client, in a form."""

    path: str
    """Where its content is, on this machine."""
    name: str
    """The client's name for it, which no path is made of."""
    content_type: str


class Forward(msgspec.Struct, tag=True, kw_only=True):
    """Send this body to another server, and return its reply as it stands."""

    id: int
    path: str
    """Below the API's base, as in "/audio/speech"."""
    body: dict[str, Any]
    """The JSON object to send, or the fields of a form if there is a file. The engine sets its `model`."""
    file: Upload | None = None


class Transcribe(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: write down what is said in this audio file."""

    id: int
    path: str
    """An audio or video file on this machine. The server deletes it after the request."""
    max_seconds: float
    """A longer file is refused."""
    language: str | None = None
    """Language of the sound, as a code of ISO 639: "en"; None: the engine finds out."""
    prompt: str | None = None
    """Text that shows the engine names and style."""
    temperature: float | None = None
    """None: the engine's default."""
    translate: bool = False
    """True if the text is wanted in English, whatever the language of the sound."""
    words: bool = False
    """True if the times of words are wanted."""


class Embed(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: return a vector for each of these texts."""

    id: int
    inputs: list[str | list[int]]
    """Texts, or the model's tokens, which are taken as they are."""
    dimensions: int | None = None
    """Length of the vectors; None: the model's own."""
    truncate: bool = False
    """True if the end of a text that is too long is dropped; otherwise such a text is refused."""
    input_type: str | None = None
    """What the texts are, for an engine that has its own prefixes: a model on another server."""


class Rerank(msgspec.Struct, tag=True, kw_only=True):
    """Server to worker: tell how well each document answers the query."""

    id: int
    query: str
    documents: list[str]
    truncate: bool = True
    """As in Embed, for documents. The query is never truncated."""


class Cancel(msgspec.Struct, tag=True):
    """Server to worker: the request is no longer wanted. A step follows, which says nothing about it."""

    id: int


class Voice(msgspec.Struct, frozen=True):
    """A voice of a speech engine."""

    id: str
    """The name in requests."""
    name: str = ""
    """Display name, if it differs from the id."""
    language: str = ""
    """BCP 47 tag such as "en-GB"; empty if the engine does not say."""


AWAITING_RANKS = "waiting for the other ranks"
"""The phase of a load in which a rank can do nothing until all others have come as far."""


AWAITING_ROOM = "waiting for room on the cluster"
"""The phase of a load in which it goes on only if others give back what they have of the cluster."""


class Loading(msgspec.Struct, tag=True):
    """Worker to server: the progress of loading."""

    phase: str
    """Current step, in plain language: "importing mlx-lm", "downloading", "reading weights"."""
    done: int = 0
    total: int = 0
    """Bytes; 0 if nothing is counted."""
    detail: str = ""
    """More about the step, which may change all the time and is not logged."""

    @property
    def text(self) -> str:
        """Return the step with its detail."""
        return f"{self.phase}: {self.detail}" if self.detail else self.phase


THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Variables of chat templates that turn thinking on and off."""
THINKING_BUDGET = "thinking_budget"
"""The variable for the most tokens of thinking; 0: none."""
THINKING_LEVEL = "reasoning_effort"
"""The variable that says how much to think."""


_TEMPLATE_CODE: Final = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_TEMPLATE_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)


def reads_variable(template: str, variable: str) -> bool:
    """Return True if the template reads a variable: not a word of its text, nor a field of something else."""
    name = re.compile(rf"(?<![.\w]){variable}\b(?!\s*=[^=])")
    return any(name.search(_TEMPLATE_TEXT.sub("''", code)) for code in _TEMPLATE_CODE.findall(template))


ToolFormatName = Literal[
    "auto", "none", "generic", "apertus", "command_r", "command_r7b", "deepseek_v3", "deepseek_v31", "deepseek_v32",
    "deepseek_v4", "function_gemma", "functools", "gemma4", "glm45", "glm47", "granite", "harmony", "json_tools",
    "kimi_k2", "kimi_k3", "llama3", "longcat", "minicpm5", "minimax_m2", "mistral", "mistral_args", "mistral_call_id",
    "muse_spark", "nemotron", "phi4", "pythonic", "qwen3_coder", "seed",
]  # fmt: skip
"""Names of formats of tool calls: the rows of `worker.llm.output.formats`."""
ReasoningFormatName = Literal[
    "auto", "none", "apertus", "command_r7b", "granite", "harmony", "magistral", "seed", "think"
]  # fmt: skip
"""Names of formats of reasoning: those of `worker.llm.output.recognition`."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat model can do. None: only the loaded model knows, and it has not been loaded."""

    tools: bool | None = None
    """True if its chat template shows the tools to it."""
    forced_tools: bool | None = None
    """True if it can be made to call a tool."""
    json_schema: bool | None = None
    """True if its answers can be kept to a JSON schema."""
    thinking: bool | None = None
    """True if it can write its reasoning before the answer."""
    thinking_switch: bool | None = None
    """True if a request can turn that on and off."""
    thinking_levels: bool | None = None
    """True if a request can say how much to think."""
    tool_format: str | None = None
    """How it writes calls, as in the option of this name; None: unknown, or not loaded."""
    reasoning_format: str | None = None
    """How it marks reasoning."""
    vision: bool | None = None
    """True if it reads images."""


class Loaded(msgspec.Struct, tag=True):
    """Worker to server: the model is ready."""

    context_length: int | None = None
    """Tokens of prompt and answer together; None if the model does not say."""
    notes: list[str] = []
    """What users should know about how this model runs ("no chat template ...")."""
    batched: bool = True
    """True if requests are answered together, False if one after the other."""
    voices: list[Voice] | None = None
    """The voices of a speech model; None if only the model knows them, or there is no choice."""
    dimensions: int | None = None
    """Length of the vectors of an embedding model."""
    takes: list[str] | None = None
    """The backend's further request fields that this model uses; None: all of them."""
    capabilities: Capabilities = Capabilities()
    device_bytes: int = 0
    """As in Step."""


class LoadRefused(msgspec.Struct, tag=True):
    """Worker to server: the model cannot be loaded. The worker exits after this."""

    message: str
    port_taken: bool = False
    """True if another process listens at the address where this rank should: other ports will do."""


class Prefill(msgspec.Struct, tag=True):
    """The progress of processing a prompt."""

    id: int
    done: int
    total: int
    """In tokens."""


class Awaiting(msgspec.Struct, tag=True, kw_only=True):
    """What a request waits for on another server, before its answer begins."""

    id: int
    at: str
    """The server, for people."""
    state: str
    """As in `runtime.progress`."""
    position: int | None = None
    step: str = ""
    done: int = 0
    total: int = 0


class Listening(msgspec.Struct, tag=True):
    """The progress of a transcription."""

    id: int
    done_seconds: float
    total_seconds: float
    """0 if the file does not say how long it is."""


class Relaxed(msgspec.Struct, tag=True):
    """Requirements on an answer's form that are not enforced. Sent before the answer."""

    id: int
    places: list[str]
    """Paths in the request: "response_format.schema.properties.tags.uniqueItems"."""


class TopLogprob(msgspec.Struct):
    """A token that could have been sampled."""

    token: bytes
    """What it adds to the answer; part of a character if the model splits characters."""
    logprob: float


class TokenLogprob(TopLogprob):
    """The token that was sampled."""

    top: list[TopLogprob] = []
    """The likeliest tokens, the likeliest first."""


class Delta(msgspec.Struct, tag=True):
    """The next text of an answer. `choice` numbers the answers to one request from 0."""

    id: int
    text: str
    choice: int = 0
    reasoning: bool = False
    """True if this is thinking, and not the answer itself."""
    logprobs: list[TokenLogprob] = []
    """One for each token since the last Delta, if the request asks for them."""
    refusal: bool = False
    """True if this says why the model does not answer."""


class ToolStart(msgspec.Struct, tag=True):
    """The start of a function call."""

    id: int
    choice: int
    index: int
    """Numbers the calls of one answer from 0."""
    call_id: str
    name: str


class ToolArguments(msgspec.Struct, tag=True):
    """The next JSON text of a call's arguments."""

    id: int
    choice: int
    index: int
    text: str


class Addition(msgspec.Struct, tag=True):
    """Fields of another server's reply that no other event has a place for."""

    id: int
    choice: int
    place: Literal["message", "choice", "reply"]
    """What the fields belong to. In a stream, those of a message are those of its delta."""
    fields: dict[str, Any]


StopReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
"""Why an answer ended. The last two come from other servers only."""


class Ended(msgspec.Struct, tag=True):
    """One of the answers is complete."""

    id: int
    choice: int
    reason: StopReason
    stop_string: str | None = None
    """The stop string that ended it."""


class Finished(msgspec.Struct, tag=True):
    """All answers are complete; nothing follows for this id."""

    id: int
    prompt_tokens: int
    completion_tokens: int
    """Tokens of all answers."""
    cached_tokens: int = 0
    """Tokens of the prompt that an earlier request had computed."""
    reasoning_tokens: int = 0
    """Tokens of the completion that are reasoning."""
    counted: bool = True
    """False if another server does not say how many tokens there are. The numbers are 0 then."""
    reported: dict[str, Any] | None = None
    """Another server's usage object."""
    load_seconds: float = 0.0
    """From the request until its model was loaded. The server measures these three."""
    prompt_seconds: float = 0.0
    """From there to the first token."""
    answer_seconds: float = 0.0
    """From the first token to the last."""


class TokenizedText(msgspec.Struct, tag=True):
    """The reply to Tokenize; nothing follows for this id."""

    id: int
    tokens: list[int]


class DetokenizedText(msgspec.Struct, tag=True):
    """The reply to Detokenize; nothing follows for this id."""

    id: int
    text: str


class Sound(msgspec.Struct, tag=True):
    """The next sound of a segment. A segment may consist of several."""

    id: int
    segment: int
    """Numbers the request's segments from 0. A segment without sound is left out."""
    pcm: bytes
    """16-bit little-endian mono samples."""
    sample_rate_hz: int


class WordTime(msgspec.Struct):
    """The time of a spoken word."""

    text: str
    start_seconds: float
    end_seconds: float


class WordTimes(msgspec.Struct, tag=True):
    """The times of a segment's words, in seconds from the segment's first sample."""

    id: int
    segment: int
    words: list[WordTime]


class Spoken(msgspec.Struct, tag=True):
    """The speech is complete; nothing follows for this id."""

    id: int
    notes: list[str] = []
    """Parts of the request that had no effect on this model, in plain language."""


class TranscriptSegment(msgspec.Struct, kw_only=True):
    """What was said between two pauses. Times are in seconds of the file; numbers are finite."""

    start_seconds: float
    end_seconds: float
    text: str
    words: list[WordTime] = []
    """If the request asks for them."""
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float = 0.0
    """Average log probability of the tokens; this and the next two are 0 if the engine does not say."""
    compression_ratio: float = 0.0
    """How well the text can be compressed; much, if the model repeats itself."""
    no_speech_prob: float = 0.0


class Heard(msgspec.Struct, tag=True):
    """The next segments of a transcript."""

    id: int
    segments: list[TranscriptSegment]


class Transcribed(msgspec.Struct, tag=True):
    """The transcript is complete; nothing follows for this id."""

    id: int
    seconds: float
    """How long the sound is."""
    language: str | None = None
    """As in Transcribe; None if the engine does not say."""


class ForwardedHead(msgspec.Struct, tag=True):
    """The beginning of the reply to Forward."""

    id: int
    content_type: str
    length: int | None = None
    """In bytes, if the other server says so."""


class ForwardedData(msgspec.Struct, tag=True):
    """The next bytes of the reply to Forward."""

    id: int
    data: bytes


class ForwardedEnd(msgspec.Struct, tag=True):
    """The reply to Forward is complete; nothing follows for this id."""

    id: int


class Embedded(msgspec.Struct, tag=True):
    """The reply to Embed; nothing follows for this id."""

    id: int
    vectors: list[bytes]
    """One for each input: 32-bit little-endian floating point numbers, of length 1 as a vector."""
    tokens: int
    """Of all inputs, without what was dropped."""
    truncated: list[int] = []
    """Indices of the inputs whose end was dropped."""


class Ranked(msgspec.Struct, tag=True):
    """The reply to Rerank; nothing follows for this id."""

    id: int
    scores: list[float]
    """One for each document, from 0 to 1; more is better."""
    tokens: int
    truncated: list[int] = []


class Failed(msgspec.Struct, tag=True):
    """The request ended without an answer; nothing follows for this id."""

    id: int
    kind: Literal["invalid_request", "context_length_exceeded", "generation_failed"]
    message: str
    param: str | None = None


Preliminary = Prefill | Awaiting | Listening | Relaxed
"""What comes before an answer, and is no part of it."""
Event = (
    Prefill | Awaiting | Listening | Relaxed | Delta | ToolStart | ToolArguments | Ended | Finished | TokenizedText
    | DetokenizedText | Sound | WordTimes | Spoken | Heard | Transcribed | Embedded | Ranked | Failed | Addition
    | ForwardedHead | ForwardedData | ForwardedEnd
)  # fmt: skip
Last = Finished | TokenizedText | DetokenizedText | Spoken | Transcribed | Embedded | Ranked | ForwardedEnd | Failed
"""After one of these nothing follows for the id."""


def join(last: Event | None, event: Event) -> bool:
    """Append an event's text to the event before it if it continues that. Return True if it does."""
    match last, event:
        case Delta(), Delta() if (last.id, last.choice, last.reasoning, last.refusal) == (
            event.id,
            event.choice,
            event.reasoning,
            event.refusal,
        ):
            last.text += event.text
            last.logprobs += event.logprobs
            return True
        case ToolArguments(), ToolArguments() if (last.id, last.choice, last.index) == (
            event.id,
            event.choice,
            event.index,
        ):
            last.text += event.text
            return True
        case _:
            return False


class Step(msgspec.Struct, tag=True):
    """Worker to server: the events of one decode step, for all requests. Without events it is a sign of life."""

    events: list[Event]
    device_bytes: int = 0
    """Memory of an accelerator that the engine holds; 0 if it computes on the processor."""
    waiting: int = 0
    """Requests that have not been started, because the batch or the memory for conversations is full."""
    tokens: int = 0
    """Tokens generated since the model was loaded, in all answers."""


TextRequest = Chat | Complete | Tokenize | Detokenize
VectorRequest = Embed | Rerank
Request = TextRequest | Speak | Transcribe | VectorRequest | Forward
ToWorker = LoadModel | Request | Cancel
ToServer = Loading | Loaded | LoadRefused | Step

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_to_server = msgspec.msgpack.Decoder(ToServer)


def frame(message: msgspec.Struct) -> bytes:
    """Return a message of this protocol, or of another one with the same frames, as a frame."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_to_worker(body: bytes) -> ToWorker:
    """Return the message of a frame, in the worker. Raise msgspec.DecodeError or msgspec.ValidationError."""
    message: ToWorker = _to_worker.decode(body)
    return message


def decode_to_server(body: bytes) -> ToServer:
    """Return the message of a frame, in the server. Raise msgspec.DecodeError or msgspec.ValidationError."""
    message: ToServer = _to_server.decode(body)
    return message
