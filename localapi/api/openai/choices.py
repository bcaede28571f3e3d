"""Answers on their way to a client: engine events to OpenAI's choices, whole or as chunks of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from localapi.worker.protocol import Delta, Ended, Finished, TokenLogprob, ToolArguments, ToolStart, TopLogprob

Growth = Delta | ToolStart | ToolArguments | Ended


def usage(finished: Finished) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": finished.prompt_tokens,
        "completion_tokens": finished.completion_tokens,
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": finished.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": finished.reasoning_tokens},
    }


def logprobs(tokens: list[TokenLogprob]) -> dict[str, Any] | None:
    """OpenAI's log probabilities of chat answers."""
    if not tokens:
        return None
    content = [{**_likely(token), "top_logprobs": [_likely(other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _likely(token: TopLogprob) -> dict[str, Any]:
    return {"token": token.token.decode("utf-8", "replace"), "logprob": token.logprob, "bytes": list(token.token)}


@dataclass
class ChatChoice:
    """One answer as it grows, for a reply that is sent whole."""

    index: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    tokens: list[TokenLogprob] = field(default_factory=list)
    reason: str | None = None

    def add(self, event: Growth) -> None:
        """Take what came."""
        match event:
            case Delta():
                (self.reasoning if event.reasoning else self.text).append(event.text)
                self.tokens += event.logprobs
            case ToolStart():
                self.calls[event.index] = _call(event.call_id, event.name)
            case ToolArguments():
                self.calls[event.index]["function"]["arguments"] += event.text
            case Ended():
                self.reason = event.reason

    def whole(self) -> dict[str, Any]:
        """OpenAI's choice object."""
        text = "".join(self.text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if self.calls else ""),
            "refusal": None,
        }
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.calls:
            message["tool_calls"] = list(self.calls.values())
        return {
            "index": self.index,
            "message": message,
            "logprobs": logprobs(self.tokens),
            "finish_reason": self.reason,
        }


def chunk_choice(event: Growth) -> dict[str, Any]:
    """OpenAI's choice object of a stream's chunk."""
    delta: dict[str, Any]
    match event:
        case Delta():
            delta = {"reasoning_content" if event.reasoning else "content": event.text}
        case ToolStart():
            delta = {"tool_calls": [{"index": event.index, **_call(event.call_id, event.name)}]}
        case ToolArguments():
            delta = {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
        case Ended():
            delta = {}
    return {
        "index": event.choice,
        "delta": delta,
        "logprobs": logprobs(event.logprobs) if isinstance(event, Delta) else None,
        "finish_reason": event.reason if isinstance(event, Ended) else None,
    }


def _call(call_id: str, name: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
