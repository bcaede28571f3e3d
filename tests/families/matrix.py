"""Checks of one family with its tokenizer and template alone: no weights are needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper, load

from localapi.worker.llm.constrained.grammar import GrammarCompiler, Tool, ToolCalls
from localapi.worker.llm.detokenizer import Detokenizer
from localapi.worker.llm.output.channels import HARMONY
from localapi.worker.llm.output.formats import FORMATS
from localapi.worker.llm.output.parser import OutputFormat
from localapi.worker.llm.output.recognition import Recognised, recognise
from localapi.worker.llm.output.thinking import prompt_opens_thinking
from localapi.worker.llm.prompt import PromptWriter, offered_tools
from localapi.worker.protocol import Chat, FunctionCall, FunctionTool, Message
from tests.worker.llm.constrained.test_tool_grammar import mask_of
from tests.worker.llm.output.test_tool_calls import Outcome, outcome

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "kind": {"enum": ["a b", "c"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "size": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["kind", "size"],
    "additionalProperties": False,
}
TOOL = FunctionTool(name="order", description="Order it.", parameters=SCHEMA)
PLAIN = {"kind": "c", "size": {"x": 5}}
HARD = {"text": 'a\n"b" \\d C:\\Users 漢🙂', "kind": "a b", "size": {"x": -1}, "tags": ["é", "{}"]}
HELD, FAILED, NONE = "yes", "no", "–"  # noqa: RUF001
COLUMNS = (
    "prompt", "thinking", "one call", "parallel", "hard arguments", "forced", "cut", "stop inside", "second turn",
)  # fmt: skip


class Matrix:
    """The checks of one family, by column."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        self.tokenizer: TokenizerWrapper = load(folder, eos_token_ids=None)
        assert config["eos_token"]
        self.recognised: Recognised = recognise(self.tokenizer)
        if self.recognised.tools is None:
            self.recognised = recognise(self.tokenizer, tools="generic")
        self.format = OutputFormat(self.tokenizer)
        self.writer = PromptWriter(self.tokenizer)
        marks = (self.tokenizer.encode(mark, add_special_tokens=False) for mark in self.format.marks)
        self.detokenizer = Detokenizer(self.tokenizer, markers={token for tokens in marks for token in tokens})
        row = FORMATS.get(self.recognised.tools or "")
        self.spelling = row.spelling if row is not None else None
        assert self.spelling is not None

    def results(self) -> dict[str, str]:
        """Return the outcome of each check."""
        checks: dict[str, Callable[[], bool | None]] = {
            "prompt": self.prompt,
            "thinking": self.thinking,
            "one call": lambda: self._reads([PLAIN]),
            "parallel": self.parallel,
            "hard arguments": lambda: self._reads([HARD]),
            "forced": self.forced,
            "cut": self.cut,
            "stop inside": self.stop_inside,
            "second turn": self.second_turn,
        }
        found = {}
        for name, check in checks.items():
            held = check()
            found[name] = NONE if held is None else HELD if held else FAILED
        return found

    def prompt(self) -> bool:
        """The prompt is transformers', with tools if the template shows them."""
        said = [Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Say 漢🙂.")]
        plain = [{"role": message.role, "content": message.text} for message in said]
        asks = [Chat(id=1, messages=said)]
        if not self.writer._explains_tools:
            asks.append(Chat(id=1, messages=said, tools=[TOOL]))
        return all(self.writer.tokens(ask) == self._reference(plain, ask) for ask in asks)

    def _reference(self, plain: list[dict[str, Any]], ask: Chat) -> list[int]:
        options: dict[str, Any] = {"add_generation_prompt": True, "return_dict": False}
        render = self.tokenizer._tokenizer.apply_chat_template
        tools = offered_tools(ask)
        try:
            return list(render(plain, tools=tools or None, **options))
        except TypeError:  # a template for conversations with tools alone
            return list(render(plain, tools=tools, **options))

    def thinking(self) -> bool | None:
        """Reasoning and content are told apart."""
        start, end = self.tokenizer.think_start, self.tokenizer.think_end
        if start is None:
            return None
        if self.format.channels is not None:
            end += self.format.channels.again + self.format.channels.content
        found = self._read(f"{start}\nHm, 漢.\n{end}\n\nYes.")
        return (found.reasoning.strip(), found.content.strip(), found.calls) == ("Hm, 漢.", "Yes.", [])

    def parallel(self) -> bool | None:
        """Several calls are several calls."""
        assert self.spelling is not None
        return None if self.spelling.between is None else self._reads([PLAIN, HARD])

    def forced(self) -> bool:
        """A random model's forced calls are valid, with and without the offer of several."""
        compiler = GrammarCompiler(self.tokenizer, len(self.tokenizer))
        tool = Tool("order", json.dumps(SCHEMA), strict=True)
        constraint = compiler.constraint(ToolCalls((tool,), choice="order", parallel=False))
        rng = np.random.default_rng(5)
        for _ in range(2):
            tokens: list[int] = []
            draw = constraint.fresh()
            while len(tokens) < 400:
                allowed = mask_of(draw, [0, *tokens], len(self.tokenizer))
                ends = [token for token in self.tokenizer.eos_token_ids if allowed[token]]
                if ends:
                    break
                tokens.append(int(rng.choice(np.flatnonzero(allowed))))
            else:
                continue  # a random model writes long texts
            found = self._read_tokens(tokens)
            if len(found.calls) != 1 or found.content:
                return False
            jsonschema.validate(json.loads(found.calls[0][1]), SCHEMA)
        return True

    def cut(self) -> bool:
        """A call that is cut off is not a complete call, wherever it is cut."""
        tokens = self._encode(self._written([HARD]))
        for length in range(len(tokens) // 3, len(tokens) * 2 // 3, 3):
            stream = self._stream()
            text = self._text(tokens[:length])
            for piece in text:
                stream.push(piece)
            stream.finish(cut=True)
            if stream.complete_calls or stream.calls_end_answer:
                return False
        return True

    def stop_inside(self) -> bool:
        """A stop string inside of a call does not end the answer."""
        found = self._read(self._written([HARD]), stop=["Users"])
        return found.parsed == [("order", HARD)]

    def second_turn(self) -> bool:
        """The call and its result are in the next prompt."""
        call = FunctionCall("call_0123456789abcdef01234567", "order", json.dumps(PLAIN))
        messages = [
            Message("user", "Hi"),
            Message("assistant", "", calls=[call]),
            Message("tool", "It is 42.", call_id=call.id),
        ]
        prompt = self.tokenizer.decode(self.writer.tokens(Chat(id=1, messages=messages, tools=[TOOL])))
        answer = prompt.rpartition("Hi")[2]
        return all(part in answer for part in ("order", "42"))

    def _reads(self, arguments: list[dict[str, Any]]) -> bool:
        found = self._read(self._written(arguments))
        return (found.parsed, found.content) == ([("order", each) for each in arguments], "")

    def _written(self, arguments: list[dict[str, Any]]) -> str:
        """Return calls as the model's template writes them, if it does, and otherwise as they are spelled."""
        user = [{"role": "user", "content": "Hi"}]
        calls = [
            {"id": f"abcdefgh{at}", "type": "function", "function": {"name": "order", "arguments": each}}
            for at, each in enumerate(arguments)
        ]
        render = self.tokenizer._tokenizer.apply_chat_template
        for content in ("", None):
            try:
                turn = [*user, {"role": "assistant", "content": content, "tool_calls": calls}]
                whole = render(
                    turn,
                    tools=[
                        {
                            "type": "function",
                            "function": {"name": "order", "description": "Order it.", "parameters": SCHEMA},
                        }
                    ],
                    tokenize=False,
                )
            except Exception:  # whatever a template raises
                continue
            # What is in front of the call is the template's matter.
            behind = whole.rpartition("Hi")[2]
            starts = [behind.find(mark) for mark in self._begins() if mark in behind]
            if "order" in behind and starts:
                text = behind[min(starts) :]
                for end in self.tokenizer.eos_token_ids:
                    text = text.partition(str(self.tokenizer._tokenizer.convert_ids_to_tokens(end)))[0]
                return text
        return self._spelled(arguments)

    def _begins(self) -> list[str]:
        assert self.spelling is not None
        if self.format.channels is HARMONY:
            return ["<|channel|>commentary", " to=functions."]
        first = (self.spelling.start + self.spelling.head).partition("{name}")[0]
        return [mark for mark in (self.tokenizer.tool_call_start, first) if mark]

    def _spelled(self, arguments: list[dict[str, Any]]) -> str:
        spelling = self.spelling
        assert spelling is not None
        assert spelling.argument is None
        assert spelling.arguments in ("json", "python")
        calls = []
        for each in arguments:
            written = json.dumps(each, ensure_ascii=False)
            if spelling.arguments == "python":
                written = ", ".join(f"{key}={value!r}" for key, value in each.items())
            calls.append((spelling.head + written + spelling.tail).replace("{name}", "order").replace("{id}", "0"))
        return spelling.start + (spelling.between or "").join(calls) + spelling.end

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _text(self, tokens: list[int]) -> list[str]:
        stream = self.detokenizer.stream()
        return [*(stream.push(token) for token in tokens), stream.finish()]

    def _stream(self, **options: Any) -> Any:
        prompt = self.writer.tokens(Chat(id=1, messages=[Message("user", "Hi")]))
        opened = prompt_opens_thinking(self.tokenizer, prompt)
        tools = offered_tools(Chat(id=1, messages=[], tools=[TOOL]))
        return self.format.stream(tools, starts_thinking=opened and bool(options.pop("opened", False)), **options)

    def _read(self, text: str, **options: Any) -> Outcome:
        return self._read_tokens(self._encode(text), **options)

    def _read_tokens(self, tokens: list[int], **options: Any) -> Outcome:
        """Return the parts of an answer, which are the same for single tokens and for the whole text."""
        pieces = self._text(tokens)
        whole = outcome(self._stream(**options), ["".join(pieces)])
        streamed = outcome(self._stream(**options), pieces)
        assert streamed.comparable == whole.comparable
        return streamed
