"""Replies of OpenAI's API as the events of an engine: responses, whole or in chunks, vectors and scores.

Servers differ in many details. What they add to a reply is passed on as an `Addition`; an invalid reply raises
BadReply.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final

from localapi.worker.protocol import (
    Addition,
    Chat,
    Complete,
    Delta,
    Ended,
    Event,
    Finished,
    StopReason,
    TokenLogprob,
    ToolArguments,
    ToolStart,
    TopLogprob,
)

MAX_CHOICES: Final = 1024
_OF_REPLY: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "obfuscation"})
_OF_CHOICE: Final = frozenset({"index", "delta", "message", "text", "logprobs", "finish_reason"})
_OF_MESSAGE: Final = frozenset({"role", "content", "reasoning", "reasoning_content", "refusal", "tool_calls"})
_REASONS: Final[Mapping[str, StopReason]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "function_call": "function_call",
}
_FAILURES: Final = frozenset({"abort", "aborted", "cancelled", "error", "insufficient_system_resource"})
"""Reasons given by servers that gave up."""


class BadReply(ValueError):
    """A reply is not valid in OpenAI's API. The message says why, for people."""


class CutOff(BadReply):
    """A reply ended before its response was complete."""


class AnswerReader:
    """Reader of the reply to one request."""

    def __init__(self, request: Chat | Complete) -> None:
        self._id = request.id
        self._expected = request.n
        self._stop = request.stop
        options = (request.original or {}).get("stream_options")
        self._repeats_usage = isinstance(options, dict) and options.get("continuous_usage_stats") is True
        self._usage: dict[str, Any] | None = None
        self._told: dict[str, Any] = {}
        """Additional fields of the reply that have been passed on."""
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._calls: dict[int, list[_Call]] = {}

    def read(self, reply: dict[str, Any], *, whole: bool) -> list[Event]:
        """Return the events of a chunk or of a whole reply."""
        choices = reply.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise BadReply("its choices are not a list of objects")
        found: list[Event] = []
        fields = _beyond(reply, _OF_REPLY)
        usage = reply.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
            if self._repeats_usage and choices:
                fields["usage"] = usage
        if fields:
            news = {key: value for key, value in fields.items() if value is not None and self._told.get(key) != value}
            if news:
                self._told |= news
                found.append(Addition(self._id, _index(choices[0]) if choices else 0, "reply", news))
        for choice in choices:
            self._read_choice(choice, found, whole=whole)
        return found

    def end(self, *, is_regular: bool = True) -> Iterator[Event]:
        """Yield what remains after the last chunk. Raise BadReply if the response is incomplete.

        `is_regular` is False if the server did not mark the end of its stream, which some do not.
        """
        if not self._begun:
            raise BadReply("it contains no response")
        if not is_regular and len(self._ended) < self._expected:
            raise CutOff("it ended in the middle")
        for choice in sorted(self._begun - self._ended):
            yield Ended(self._id, choice, "stop")
        yield _finished(self._id, self._usage)

    def _read_choice(self, choice: dict[str, Any], found: list[Event], *, whole: bool) -> None:
        index = _index(choice)
        message = choice.get("delta") or choice.get("message") or {}
        if not isinstance(message, dict):
            raise BadReply("a choice's message is not an object")
        self._begun.add(index)
        deltas = _texts(self._id, index, message, choice.get("text"))
        unread = False
        if choice.get("logprobs"):
            unread = _add_logprobs(deltas, choice["logprobs"], Delta(self._id, "", index))
        found += deltas
        further = _beyond(message, _OF_MESSAGE)
        calls = message.get("tool_calls")
        if isinstance(calls, list) and all(_is_function(call) for call in calls):
            found += self._function_calls(index, calls)
        elif calls:
            further["tool_calls"] = calls
        if further:
            found += self._additions(index, "message", further, whole=whole)
        beside = _beyond(choice, _OF_CHOICE)
        if unread:
            beside["logprobs"] = choice["logprobs"]
        if beside:
            found += self._additions(index, "choice", beside, whole=whole)
        reason = choice.get("finish_reason")
        if reason and index not in self._ended:  # some send "" until there is one
            reason = str(reason).lower()
            if reason in _FAILURES:
                raise BadReply(f"it gave up ({reason})")
            self._ended.add(index)
            # vLLM's name for the stop string.
            stop_string = choice.get("stop_reason")
            known = stop_string in self._stop if isinstance(stop_string, str) else False
            found.append(Ended(self._id, index, _REASONS.get(reason, "stop"), stop_string if known else None))

    def _additions(self, choice: int, place: Any, fields: Mapping[str, Any], *, whole: bool) -> list[Event]:
        # Some servers send absent fields as null in every chunk.
        nothing: tuple[object, ...] = (None,) if whole else (None, [], {}, "")
        said = {key: value for key, value in fields.items() if value not in nothing}
        return [Addition(self._id, choice, place, said)] if said else []

    def _function_calls(self, choice: int, calls: list[dict[str, Any]]) -> Iterator[Event]:
        begun = self._calls.setdefault(choice, [])
        for given in calls:
            function = given.get("function") or {}
            call_id, name, arguments = given.get("id"), function.get("name"), function.get("arguments")
            at = _place(begun, given.get("index"), call_id, name)
            if at == len(begun):
                if not name:
                    raise BadReply("a call has no name")
                begun.append(_Call(given.get("index"), call_id))
                yield ToolStart(self._id, choice, at, str(call_id or f"call_{secrets.token_hex(12)}"), str(name))
            if isinstance(arguments, dict | list):
                arguments = json.dumps(arguments)
            if arguments:
                yield ToolArguments(self._id, choice, at, str(arguments))


class _Call:
    """Tool call as the server named it at its start."""

    def __init__(self, index: object, call_id: object) -> None:
        self.index, self.id = index, call_id


def _place(begun: list[_Call], index: object, call_id: object, name: object) -> int:
    """Return the number of the call that a part belongs to; the next number if it starts a call.

    Some servers give no index, some give 0 to all calls, and some repeat id and name in every part.
    """
    for at in range(len(begun) - 1, -1, -1):
        call = begun[at]
        same_id = call_id is None or call_id in ("", call.id)
        if index is not None and call.index == index and (same_id or not name):
            return at
        if index is None and same_id and not name:
            return at
    return len(begun)


def _is_function(call: object) -> bool:
    if not isinstance(call, dict) or not isinstance(call.get("function") or {}, dict):
        return False
    return call.get("type") in (None, "", "function") and "custom" not in call


def _beyond(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Return the unknown fields; usually there are none."""
    if fields.keys() <= known:
        return {}
    return {key: value for key, value in fields.items() if key not in known}


def _index(choice: Mapping[str, Any]) -> int:
    index = choice.get("index") or 0
    if not isinstance(index, int) or not 0 <= index < MAX_CHOICES:
        raise BadReply("a choice's index is not a number")
    return index


def _texts(request: int, choice: int, message: Mapping[str, Any], text: object) -> list[Delta]:
    """Return the texts of a message: reasoning, content, and a refusal."""
    found: list[Delta] = []
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        found.append(Delta(request, thought, choice, reasoning=True))
    content = message.get("content") if text is None else text
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        words, reasoning = part, False
        if isinstance(part, dict):  # the form of Mistral's API for reasoning
            reasoning = part.get("type") == "thinking"
            words = part.get("thinking") if reasoning else part.get("text")
            if isinstance(words, list):
                words = "".join(str(each.get("text", "")) for each in words if isinstance(each, dict))
        if isinstance(words, str) and words:
            found.append(Delta(request, words, choice, reasoning=reasoning))
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        found.append(Delta(request, refusal, choice, refusal=True))
    return found


def _add_logprobs(deltas: list[Delta], given: object, alone: Delta) -> bool:
    """Add log probabilities to the texts they belong to, or append `alone` for them.

    Return True if they have another form than OpenAI's.
    """
    tokens, refusal_tokens, unread = _logprobs(given)
    for delta in deltas:
        if delta.refusal:
            delta.logprobs, refusal_tokens = refusal_tokens, []
        else:
            delta.logprobs, tokens = tokens, []
    if tokens:
        alone.logprobs = tokens
        deltas.append(alone)
    return unread


def _logprobs(given: object) -> tuple[list[TokenLogprob], list[TokenLogprob], bool]:
    """Return the tokens of the content and of the refusal, and whether they have another form than OpenAI's."""
    if not isinstance(given, dict):
        return [], [], False
    try:
        if "tokens" in given:
            return _parallel(given), [], False
        content, refusal = given.get("content") or [], given.get("refusal") or []
        return [_token(each) for each in content], [_token(each) for each in refusal], False
    except (LookupError, TypeError, ValueError, AttributeError):
        return [], [], True


def _token(given: dict[str, Any]) -> TokenLogprob:
    top = [TopLogprob(_bytes(each), float(each["logprob"])) for each in given.get("top_logprobs") or []]
    return TokenLogprob(_bytes(given), float(given["logprob"]), top)


def _bytes(token: dict[str, Any]) -> bytes:
    said = token.get("bytes")
    return bytes(said) if isinstance(said, list) else str(token["token"]).encode("utf-8", "surrogatepass")


def _parallel(given: dict[str, Any]) -> list[TokenLogprob]:
    """Return the tokens of a completion, which come in parallel lists."""
    likeliest = given.get("top_logprobs") or [{}] * len(given["tokens"])
    found: list[TokenLogprob] = []
    for token, logprob, top in zip(given["tokens"], given["token_logprobs"], likeliest, strict=True):
        others = [TopLogprob(other.encode(), float(odds)) for other, odds in (top or {}).items()]
        found.append(TokenLogprob(token.encode(), float(logprob), others))
    return found


def _finished(request: int, usage: dict[str, Any] | None) -> Finished:
    """Return the end of a response. Counts that the server does not report are not guessed."""
    said = usage or {}
    prompt, completion = said.get("prompt_tokens"), said.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return Finished(request, 0, 0, counted=False)
    cached = _detail(said, "prompt_tokens_details", "cached_tokens") or said.get("prompt_cache_hit_tokens")
    reasoning = _detail(said, "completion_tokens_details", "reasoning_tokens")
    return Finished(
        request,
        prompt,
        completion,
        cached_tokens=cached if isinstance(cached, int) else 0,
        reasoning_tokens=reasoning if isinstance(reasoning, int) else 0,
        reported=usage,
    )


def _detail(usage: Mapping[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None


_NUMBER_BYTES: Final = 4
"""Size of a 32-bit floating-point number."""


def vectors_in(reply: dict[str, Any], count: int) -> list[bytes]:
    """Return the vectors of a reply of `/v1/embeddings`, in the order of the inputs. Raise BadReply."""
    vectors = by_index(reply.get("data"), count)
    return [_vector(each.get("embedding")) for each in vectors]


def scores_in(reply: dict[str, Any], count: int) -> list[float]:
    """Return the scores of a reply of `/v1/rerank`, in the order of the documents. Raise BadReply."""
    scores: list[float] = []
    for each in by_index(reply.get("results", reply.get("data")), count):
        score = each.get("relevance_score", each.get("score"))
        if not isinstance(score, int | float):
            raise BadReply("a document has no score")
        scores.append(float(score))
    return scores


def by_index(items: object, count: int) -> list[dict[str, Any]]:
    """Return the items of a list by their `index`. Raise BadReply if there is not one for each."""
    found: dict[int, dict[str, Any]] = {}
    for at, each in enumerate(items if isinstance(items, list) else ()):
        if isinstance(each, dict):
            found[each.get("index", at)] = each
    if sorted(found) != list(range(count)):
        raise BadReply(f"it should have {count} results, one for each input, but has {len(found)}")
    return [found[at] for at in range(count)]


def tokens_in(reply: dict[str, Any]) -> int:
    """Return the tokens that a reply counts; 0 if it counts none."""
    usage = reply.get("usage")
    for name in ("prompt_tokens", "total_tokens"):
        tokens = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(tokens, int):
            return tokens
    return 0


def _vector(said: object) -> bytes:
    """Return the little-endian bytes of a vector, which a server may send as numbers even if asked for base64."""
    try:
        if isinstance(said, str):
            vector = base64.b64decode(said, validate=True)
        elif isinstance(said, list):
            numbers = array("f", said)
            if sys.byteorder == "big":
                numbers.byteswap()
            vector = numbers.tobytes()
        else:
            raise BadReply("an input has no vector")
    except (binascii.Error, TypeError, OverflowError) as error:
        raise BadReply("a vector is neither base64 nor numbers") from error
    if not vector or len(vector) % _NUMBER_BYTES:
        raise BadReply("a vector has an incomplete number")
    return vector
