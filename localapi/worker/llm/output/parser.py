"""An answer's text to the parts that OpenAI's API knows: content, reasoning, tool calls.

It comes behind `stop_strings.AnswerText`, which makes text of tokens. Models mark parts with strings (`<think>`,
`<tool_call>`); which ones, mlx-lm's TokenizerWrapper knows. Markers never come out, text that may begin one waits until
it is certain, and nothing else is lost: what looks like a call and is none is text. Knows no MLX.

Stop strings apply to the content as the client gets it, and to nothing else: not to thinking, calls or marks, nor to
the whitespace that templates write around them.

Where models leave the format:
- A think block that never ends is reasoning to the end.
- A marker that ends thinking which never began is dropped where no content has come yet, and else it is content (as
  in mlx-lm: what was streamed as content cannot become reasoning). A second start marker at the start of thinking is
  dropped too.
- A call inside a think block is a call, and content follows it (as in mlx-lm). If it is none, thinking goes on.
- A call of a function that is not among the tools is text.
- A call that comes without the marks around it is a call, if its own tags cannot be mistaken for text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from localapi.worker.llm.constrained.tool_grammar import BEHIND_THINKING
from localapi.worker.llm.output.sections import CallArguments, Calls, CallStart, Markers, Section, SectionItem
from localapi.worker.llm.output.stop_strings import StopStrings
from localapi.worker.llm.output.tool_calls import ToolFormat, described

__all__ = [
    "CallArguments",
    "CallStart",
    "Content",
    "OutputFormat",
    "OutputItem",
    "OutputParser",
    "Reasoning",
    "prompt_opens_thinking",
]

NORMAL, REASONING, TOOL = "normal", "reasoning", "tool"
"""mlx-lm's names of states. In any other (Muse Spark's headers) text is dropped."""
MOST_TEMPLATE_SPACE = 8
"""Characters of whitespace that may be a template's, between content and a call. More of it is the model's."""


class Content(msgspec.Struct, frozen=True, tag=True):
    """Text that the answer grows by."""

    text: str


class Reasoning(msgspec.Struct, frozen=True, tag=True):
    """Text that the thinking before the answer grows by."""

    text: str


OutputItem = Content | Reasoning | CallStart | CallArguments
State = Literal["reasoning", "content", "tool"]
Edges = dict[str, dict[str, str]]
"""In which state which marker leads to which state."""


class OutputFormat:
    """How one model marks thinking and tool calls."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is mlx-lm's TokenizerWrapper."""
        self.think_start: str | None = tokenizer.think_start
        self.think_end: str | None = tokenizer.think_end
        self.tool_format = (
            ToolFormat(tokenizer.tool_call_start, tokenizer.tool_call_end or "", tokenizer.tool_parser)
            if tokenizer.has_tool_calling
            else None
        )
        self._initial: str | None = tokenizer.response_initial_state
        self._edges = _edges(tokenizer)
        if self.tool_format and self.tool_format.bare_start:
            self._edges[NORMAL].setdefault(self.tool_format.bare_start, TOOL)
        self._toolless_edges = _without_calls(self._edges)
        if self.tool_format and self.tool_format.end_is_no_text:
            self._edges[NORMAL].setdefault(self.tool_format.end, NORMAL)
        self._markers = _markers(self._edges)
        self._toolless_markers = _markers(self._toolless_edges)

    @property
    def marks(self) -> set[str]:
        """Strings that must reach `OutputParser.push`, even where the tokenizer calls them special."""
        marks = {marker for edges in self._edges.values() for marker in edges}
        return marks | self.tool_format.marks if self.tool_format else marks

    def stream(
        self,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        *,
        starts_thinking: bool = False,
        stop: Sequence[str] = (),
        verbatim: bool = False,
    ) -> OutputParser:
        """The parts of one answer. Without tools, or with tool_choice "none", a call's text is content.

        `verbatim`: whitespace at the content's start is part of it, as a form demands it.
        """
        offered = described(tools or ()) if tool_choice != "none" else []
        has_calls = bool(offered and self.tool_format)
        return OutputParser(
            self,
            offered,
            edges=self._edges if has_calls else self._toolless_edges,
            markers=self._markers if has_calls else self._toolless_markers,
            state=self._initial or (REASONING if starts_thinking and self.think_end else NORMAL),
            stop=stop,
            verbatim=verbatim,
        )


class OutputParser:
    """The parts of one answer."""

    def __init__(
        self,
        form: OutputFormat,
        tools: Sequence[dict[str, Any]],
        *,
        edges: Edges,
        markers: dict[str, Markers],
        state: str,
        stop: Sequence[str],
        verbatim: bool,
    ) -> None:
        self._format = form
        self._tools = tools
        self._edges = edges
        self._markers = markers
        self._state = state
        self._calls = Calls()
        self._section: Section | None = None
        self._held = ""
        self._header = ""
        self._out: list[OutputItem] = []
        self._called = False
        self._stop = StopStrings(stop) if stop else None
        self.stopped = False
        """Whether the content has come to a stop string. Nothing follows then."""
        self._content = _VerbatimFlow() if verbatim else _Flow(None if markers[NORMAL] else "")
        self._reasoning = _Flow("\r\n")
        self._reasoning.border()

    @property
    def state(self) -> State:
        """Where the text is now."""
        if self._section is not None:
            return "tool"
        return "reasoning" if self._state == REASONING else "content"

    @property
    def called(self) -> bool:
        """Whether a call has begun."""
        return self._called

    @property
    def calls_end_answer(self) -> bool:
        """Whether there are calls and none was cut: then finish_reason "stop" becomes "tool_calls"."""
        return self._called and not self._calls.unfinished

    @property
    def complete_calls(self) -> int:
        """How many calls have come to their end."""
        return self._calls.complete

    @property
    def broken_call(self) -> bool:
        """Whether there is a call whose arguments were cut or are no JSON object. What came of them was given."""
        return self._calls.broken

    def push(self, text: str) -> list[OutputItem]:
        """The parts that are certain after this text and were not before."""
        self._read(text)
        return self._given()

    def finish(self, *, cut: bool = False) -> list[OutputItem]:
        """The rest. `cut`: the answer ended where the model did not mean to end it, at max_tokens."""
        self._read("", final=True)
        while self._section is not None and not self.stopped:
            section = self._section
            self._take(section.finish(cut=cut))
            self._section = None
            self._read(section.rest or "", final=True)
        if not self._content.said and not self._reasoning.said and not self.called:
            self._add(Content(self._header))
        self._add(Content(self._content.rest()))
        if self._stop is not None and not self.stopped:
            self._append(Content(self._stop.finish()))
        return self._given()

    def _read(self, text: str, *, final: bool = False) -> None:
        text, self._held = self._held + text, ""
        while not self.stopped:
            if self._section is not None:
                self._take(self._section.push(text))
                if self._section.rest is None:
                    return
                text, self._section = self._section.rest, None
            before, marker, text = self._markers[self._state].split(text, final=final)
            self._say(before)
            if marker is None:
                self._held = text
                return
            self._cross(marker)

    def _say(self, text: str) -> None:
        if self._state == NORMAL:
            self._add(Content(self._content.say(text)))
            self._stop_in_space()
        elif self._state == REASONING:
            self._add(Reasoning(self._reasoning.say(text)))
        else:
            self._header += text

    def _stop_in_space(self) -> None:
        """Look for a stop string in whitespace that waits, if there is too much of it to be a template's.

        Otherwise an answer that ends in newlines for ever would not stop at them.
        """
        space = self._content.held
        if self._stop is not None and len(space) > MOST_TEMPLATE_SPACE and self._stop.finds(space):
            self._add(Content(space))

    def _cross(self, marker: str) -> None:
        """Follow a marker to the state behind it."""
        state, form = self._state, self._format
        self._header = ""
        stray = self._content if marker == form.think_end and state == NORMAL else None
        stray = self._reasoning if marker == form.think_start and state == REASONING else stray
        if stray is not None and not stray.fresh:
            self._say(marker)
            return
        target = self._edges[state][marker]
        if target == TOOL:
            self._open_section(marker)
        elif target != state or stray is not None:
            self._move(target)

    def _open_section(self, marker: str) -> None:
        form = self._format.tool_format
        if form is None or not self._tools:  # in a header: a call that nobody asked for
            self._move(NORMAL)
            self._say(marker)
            return
        abandon = self._format.think_end if self._state == REASONING else None
        self._section = form.section(marker, self._tools, self._calls, abandon=abandon)

    def _move(self, state: str) -> None:
        self._state = state
        self._content.border()
        self._reasoning.border()

    def _take(self, found: Sequence[SectionItem]) -> None:
        for item in found:
            if self.stopped:
                return
            if isinstance(item, str):
                if self._state not in (NORMAL, REASONING):
                    self._move(NORMAL)
                self._say(item)
                continue
            if isinstance(item, CallStart):
                self._move(NORMAL)
            self._add(item)

    def _add(self, part: OutputItem) -> None:
        """Give a part, unless the content has come to a stop string."""
        if self.stopped:
            return
        if self._stop is not None and isinstance(part, Content):
            text, self.stopped = self._stop.push(part.text)
            part = Content(text)
        self._append(part)

    def _append(self, part: OutputItem) -> None:
        """Give a part; text that continues the last one becomes one with it."""
        if isinstance(part, CallStart):
            self._called = True
            self._out.append(part)
            return
        if not part.text:
            return
        last = self._out[-1] if self._out else None
        if isinstance(last, type(part)) and getattr(last, "index", None) == getattr(part, "index", None):
            self._out[-1] = msgspec.structs.replace(last, text=last.text + part.text)
        else:
            self._out.append(part)

    def _given(self) -> list[OutputItem]:
        out, self._out = self._out, []
        return out


class _Flow:
    """Text of one kind, without the whitespace that templates put around sections of another kind.

    Where text goes on behind such a section, the whitespace before it stays; or, if there was none, that behind it.
    """

    def __init__(self, space: str | None) -> None:
        """`space`: what is whitespace, as for str.strip."""
        self._space = space
        self.held = ""
        """Whitespace that waits for what comes next."""
        self._resuming = False
        self._keeps = False
        self.said = False
        self.fresh = True
        """Whether no text has come since the start or the last section."""

    def say(self, text: str) -> str:
        """The text to give; whitespace at its end waits for what comes next."""
        if self._resuming:
            body = text.lstrip(self._space)
            if self._keeps:
                self.held += text[: len(text) - len(body)]
            text = body
        if not text:
            return ""
        self._resuming = False
        text = self.held + text
        body = text.rstrip(self._space)
        self.held = text[len(body) :]
        if body:
            self.said, self.fresh = True, False
        return body

    def border(self) -> None:
        """A section of another kind is here."""
        if not self.said:
            self.held = ""
        if not self._resuming:
            self._keeps = self.said and not self.held
        self._resuming = self.fresh = True

    def rest(self) -> str:
        """What waited, at the answer's end."""
        return "" if self._resuming else self.held


class _VerbatimFlow(_Flow):
    """Text whose whitespace is its own, but for what `tool_grammar.after_thinking` puts between it and thinking."""

    def __init__(self) -> None:
        super().__init__("")
        self._skipping = 0

    def say(self, text: str) -> str:
        while self._skipping and text:
            if not BEHIND_THINKING.endswith(text[0]):
                self._skipping = 0
                break
            self._skipping -= 1
            text = text[1:]
        if text:
            self.said, self.fresh = True, False
        return text

    def border(self) -> None:
        self.fresh = True
        self._skipping = len(BEHIND_THINKING)


def prompt_opens_thinking(tokenizer: Any, prompt: str | Sequence[int], *, prefill: str = "") -> bool:
    """Whether the answer to this prompt begins inside a think block, opened by the template or by the prefill.

    `prefill`: the text of the assistant's message which the prompt ends with and the answer continues. Only the end of
    the prompt counts: a user may write `<think>` anywhere else.
    """
    start, end = tokenizer.think_start, tokenizer.think_end
    if start is None:
        return False
    if not isinstance(prompt, str):
        # A token is at least a byte, or a few of whitespace; the marker and what is around it are short.
        prompt = str(tokenizer.decode(list(prompt[-(64 + len(prefill.encode("utf-8", "replace"))) :])))
    if prefill.rfind(start) != prefill.rfind(end):
        return prefill.rfind(start) > prefill.rfind(end)
    return prompt.rstrip().removesuffix(prefill.rstrip()).rstrip().endswith(start.rstrip())


def _edges(tokenizer: Any) -> Edges:
    """As `mlx_lm.generate.make_text_state_machine`, without stop words; and with think markers out of place."""
    transitions: dict[str, list[tuple[str, str]]] = tokenizer.response_transitions
    edges: Edges = {NORMAL: {}, REASONING: {}}
    if tokenizer.has_thinking:
        edges[NORMAL] = {tokenizer.think_start: REASONING, tokenizer.think_end: NORMAL}
        edges[REASONING] = {tokenizer.think_end: NORMAL, tokenizer.think_start: REASONING}
    if tokenizer.has_tool_calling:
        if not any(target == TOOL for pairs in transitions.values() for _, target in pairs):
            edges[NORMAL][tokenizer.tool_call_start] = TOOL
        if tokenizer.has_thinking:
            edges[REASONING][tokenizer.tool_call_start] = TOOL
    edges[NORMAL] |= dict.fromkeys(tokenizer.structural_markers, NORMAL)
    for state, pairs in transitions.items():
        edges.setdefault(state, {}).update(pairs)
        for _, target in pairs:
            edges.setdefault(target, {})
    return edges


def _without_calls(edges: Edges) -> Edges:
    """Calls are text. But a header, whose text is dropped, ends where one begins."""
    return {
        state: {mark: target for mark, target in marks.items() if target != TOOL or state not in (NORMAL, REASONING)}
        for state, marks in edges.items()
    }


def _markers(edges: Edges) -> dict[str, Markers]:
    return {state: Markers(marks) for state, marks in edges.items()}
