"""Split an answer's text into the parts that OpenAI's API distinguishes: content, reasoning and tool calls.

The text comes from `stop_strings.AnswerText`, which turns tokens into text. Models mark reasoning and calls with
strings (`<think>`, `<tool_call>`); mlx-lm's TokenizerWrapper knows which ones. Markers are never part of the output,
text that may begin a marker waits until that is certain, and nothing else is lost: text that only looks like a call
stays text. This module knows no MLX.

Stop strings apply to the content as the client receives it, and to nothing else: not to reasoning, calls or markers,
nor to the whitespace that templates write around them.

What happens if a model does not keep to its format:
- A think block that never ends is reasoning to the end.
- A marker that ends a think block that never began is dropped if no content has come yet; otherwise it is content (as
  in mlx-lm: what was streamed as content cannot become reasoning). A second start marker at the start of a think block
  is dropped, too.
- A call inside a think block is a call, and content follows it (as in mlx-lm). If it is not a call after all, the
  reasoning goes on.
- A call of a function that is not among the tools is text.
- A call without the marks around it is a call if its own tags cannot be mistaken for text.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import msgspec

from localapi.worker.llm.output.call_ids import ANY
from localapi.worker.llm.output.channels import HEADER, MESSAGE, NORMAL, REASONING, TOOL, ChannelCall
from localapi.worker.llm.output.recognition import channels_of
from localapi.worker.llm.output.sections import CallArguments, Calls, CallStart, Markers, Section, SectionItem
from localapi.worker.llm.output.stop_strings import StopStrings
from localapi.worker.llm.output.thinking import BEHIND_THINKING
from localapi.worker.llm.output.tool_calls import ToolFormat

MOST_TEMPLATE_SPACE = 8
"""Maximum characters of whitespace between content and a call that may be the template's. More of it is the model's."""


class Content(msgspec.Struct, frozen=True, tag=True):
    """Next text of the answer."""

    text: str


class Reasoning(msgspec.Struct, frozen=True, tag=True):
    """Next text of the reasoning before the answer."""

    text: str


OutputItem = Content | Reasoning | CallStart | CallArguments


class Edges:
    """The markers that end one state."""

    def __init__(self, targets: dict[str, str]) -> None:
        self.targets = targets
        """State to which each marker leads."""
        self.markers = Markers(targets)


class OutputFormat:
    """The marks of one model around reasoning and tool calls."""

    def __init__(self, tokenizer: Any) -> None:
        """Read the marks from mlx-lm's TokenizerWrapper."""
        self.think_start: str | None = tokenizer.think_start
        self.think_end: str | None = tokenizer.think_end
        self.tool_format: ToolFormat | None = None
        if tokenizer.has_tool_calling:
            end = tokenizer.tool_call_end or ""
            self.tool_format = ToolFormat(tokenizer.tool_call_start, end, tokenizer.tool_parser)
        self._initial: str | None = tokenizer.response_initial_state
        self.channels = channels_of(tokenizer)
        if self.channels is not None:
            self._initial = HEADER
            self.think_start = self.think_end = None  # headers mark reasoning
            edges = {state: dict(targets) for state, targets in self.channels.edges.items()}
        else:
            edges = _edges(tokenizer)
        if self.tool_format and self.tool_format.bare_start:
            edges[NORMAL].setdefault(self.tool_format.bare_start, TOOL)
        self._toolless = {}
        for state, targets in edges.items():
            # The text of a header is dropped, and the header still ends at a call.
            is_header = state not in (NORMAL, REASONING)
            self._toolless[state] = Edges({m: to for m, to in targets.items() if is_header or to != TOOL})
        if self.tool_format and self.tool_format.end_is_no_text:
            edges[NORMAL].setdefault(self.tool_format.end, NORMAL)
        self._edges = {state: Edges(targets) for state, targets in edges.items()}

    @property
    def marks(self) -> set[str]:
        """Strings that must reach `OutputParser.push` even if the tokenizer calls them special."""
        marks = set().union(*(edges.targets for edges in self._edges.values()))
        if self.channels is not None:
            marks |= self.channels.marks
        return marks | self.tool_format.marks if self.tool_format else marks

    def stream(
        self,
        tools: Sequence[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] | None = None,
        *,
        starts_thinking: bool = False,
        continues: bool = False,
        stop: Sequence[str] = (),
        verbatim: bool = False,
        taken: Collection[str] = (),
    ) -> OutputParser:
        """Return the parser of one response. Without tools, or with tool_choice "none", a call's text is content.

        With `continues`, the prompt ends with the start of the response's content. `taken` are the ids of earlier
        calls. With `verbatim`, whitespace at the content's start belongs to it, as in a response that must have a form.
        """
        ids = self.tool_format.ids if self.tool_format else ANY
        calls = Calls(() if tool_choice == "none" else tools or (), ids, taken)
        has_calls = bool(calls.tools and self.tool_format)
        state = REASONING if starts_thinking and self.think_end else NORMAL
        return OutputParser(
            self,
            calls,
            edges=self._edges if has_calls else self._toolless,
            state=NORMAL if continues and self._initial else self._initial or state,
            stop=stop,
            verbatim=verbatim,
        )


class OutputParser:
    """Splitter of one response's text."""

    def __init__(
        self,
        format_: OutputFormat,
        calls: Calls,
        *,
        edges: dict[str, Edges],
        state: str,
        stop: Sequence[str],
        verbatim: bool,
    ) -> None:
        self._format = format_
        self._edges = edges
        self._state = state
        self._calls = calls
        self._section: Section | None = None
        tool_format = format_.tool_format
        self._opens = tool_format.opens if tool_format is not None and calls.tools else ""
        self._held = ""
        self._header = ""
        self._out: list[OutputItem] = []
        self.called = False
        """True if a call has begun."""
        self._stop = StopStrings(stop) if stop else None
        self.stopped = False
        """True after a stop string in the content. Nothing follows then."""
        self._content = _VerbatimText() if verbatim else _TrimmedText(None if edges[NORMAL].targets else "")
        self._reasoning = _TrimmedText("\r\n")
        self._reasoning.interrupt()

    @property
    def state(self) -> Literal["reasoning", "content", "tool"]:
        """Kind of the text that comes now."""
        if self._section is not None:
            return "tool"
        return "reasoning" if self._state == REASONING else "content"

    @property
    def stop_string(self) -> str | None:
        """Stop string that ended the response."""
        return self._stop.found if self._stop else None

    @property
    def calls_end_answer(self) -> bool:
        """True if there are calls and none was cut off: then finish_reason "stop" becomes "tool_calls"."""
        return self.called and not self._calls.unfinished

    @property
    def complete_calls(self) -> int:
        """The number of complete calls."""
        return self._calls.complete

    @property
    def broken_call(self) -> bool:
        """True if the arguments of a call were cut off or are not a JSON object. They were given unchanged."""
        return self._calls.broken

    def push(self, text: str) -> list[OutputItem]:
        """Return the items that became certain with this text."""
        self._read(text)
        return self._take_output()

    def finish(self, *, cut: bool = False) -> list[OutputItem]:
        """Return the rest. If `cut`, the response was cut off at max_tokens, so the model did not mean to end it."""
        self._read("", final=True)
        while self._section is not None and not self.stopped:
            section = self._section
            self._add_all(section.finish(cut=cut))
            self._section = None
            self._read(section.rest or "", final=True)
        if not self._content.has_text and not self._reasoning.has_text and not self.called:
            self._add(Content(self._header))
        self._add(Content(self._content.rest()))
        if self._stop is not None and not self.stopped:
            self._append(Content(self._stop.finish()))
        return self._take_output()

    def _read(self, text: str, *, final: bool = False) -> None:
        text = self._held + text
        self._held = ""
        while not self.stopped:
            if self._section is not None:
                self._add_all(self._section.push(text))
                if self._section.rest is None:
                    return
                text = self._section.rest
                self._section = None
            if self._may_open_call:
                if text and not text.strip():
                    self._held = text
                    if not final:
                        return
                elif text and text.lstrip()[0] in self._opens and self._format.tool_format is not None:
                    self._section = self._format.tool_format.section("", self._calls)
                    text = text.lstrip()
                    self._opens = ""  # text that turns out not to be a call is read again
                    continue
            self._held = ""
            before, marker, text = self._edges[self._state].markers.split(text, final=final)
            self._add_text(before)
            if marker is None:
                self._held = text
                return
            self._cross(marker)

    @property
    def _may_open_call(self) -> bool:
        """Return True if a call may begin here without a mark: at the start of the content."""
        return bool(self._opens) and self._state == NORMAL and not self._content.has_text and not self.called

    def _add_text(self, text: str) -> None:
        if self._state == NORMAL:
            self._add(Content(self._content.push(text)))
            # A response that ends in newlines forever must stop at them, so waiting whitespace is also searched if
            # there is more of it than a template writes.
            space = self._content.held
            if self._stop is not None and len(space) > MOST_TEMPLATE_SPACE and self._stop.finds(space):
                self._add(Content(space))
        elif self._state == REASONING:
            self._add(Reasoning(self._reasoning.push(text)))
        else:
            self._header += text

    def _cross(self, marker: str) -> None:
        """Follow a marker to the state after it."""
        state, header = self._state, self._header
        self._header = ""
        stray: _TrimmedText | None = None
        if marker == self._format.think_end and state == NORMAL:
            stray = self._content
        if marker == self._format.think_start and state == REASONING:
            stray = self._reasoning
        if stray is not None and not stray.fresh:
            self._add_text(marker)
            return
        target = self._edges[state].targets[marker]
        if target == MESSAGE:
            self._open_message(header, marker)
            return
        channels = self._format.channels
        if channels is not None and target == HEADER and marker == channels.opens:
            self._header = marker  # the rest of the header follows
        tool_format = self._format.tool_format
        if target != TOOL:
            if target != state or stray is not None:
                self._move(target)
        elif tool_format is not None and self._calls.tools:
            abandon = self._format.think_end if state == REASONING else None
            self._section = tool_format.section(marker, self._calls, abandon=abandon)
        else:  # in a header: a call that was not requested
            self._move(NORMAL)
            self._add_text(marker)

    def _open_message(self, header: str, marker: str) -> None:
        """Follow the header of a message, which this marker ends."""
        channels = self._format.channels
        assert channels is not None  # noqa: S101  # only they lead here
        name = channels.called(header)
        if name is not None and name in self._calls.schemas:
            self._section = ChannelCall(name, self._calls, channels.ends)
            return
        is_reasoning = name is None and channels.reasoning.search(header) is not None
        self._move(REASONING if is_reasoning else NORMAL)
        if channels.is_text.fullmatch(header):
            self._add_text(header + marker)

    def _move(self, state: str) -> None:
        self._state = state
        self._content.interrupt()
        self._reasoning.interrupt()

    def _add_all(self, items: Sequence[SectionItem]) -> None:
        for item in items:
            if self.stopped:
                return
            if isinstance(item, str):
                if self._state not in (NORMAL, REASONING):
                    self._move(NORMAL)
                self._add_text(item)
                continue
            if isinstance(item, CallStart):
                self._move(NORMAL)
            self._add(item)

    def _add(self, item: OutputItem) -> None:
        """Add an item to the output, unless the content has reached a stop string."""
        if self.stopped:
            return
        if self._stop is not None and isinstance(item, Content):
            text, self.stopped = self._stop.push(item.text)
            item = Content(text)
        self._append(item)

    def _append(self, item: OutputItem) -> None:
        if isinstance(item, CallStart):
            self.called = True
        elif not item.text:
            return
        self._out.append(item)

    def _take_output(self) -> list[OutputItem]:
        out = self._out
        self._out = []
        return out


class _TrimmedText:
    """Text of one kind, without the whitespace that templates put around sections of another kind.

    If text continues after such a section, the whitespace before the section is kept; if there was none, that after it.
    """

    def __init__(self, space: str | None) -> None:
        """Start a text; `space` are the characters that count as whitespace, as for str.strip."""
        self._space = space
        self.held = ""
        """Whitespace that waits for what follows."""
        self._resuming = False
        self._keeps = False
        self.has_text = False
        self.fresh = True
        """True if no text has come since the start or the last section."""

    def push(self, text: str) -> str:
        """Return the text to send. Whitespace at its end waits for what follows."""
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
            self.has_text = True
            self.fresh = False
        return body

    def interrupt(self) -> None:
        """Record that a section of another kind is here."""
        if not self.has_text:
            self.held = ""
        if not self._resuming:
            self._keeps = self.has_text and not self.held
        self._resuming = True
        self.fresh = True

    def rest(self) -> str:
        """Return the whitespace that still waits at the end."""
        return "" if self._resuming else self.held


class _VerbatimText(_TrimmedText):
    """Text whose whitespace belongs to it, except for what `tool_grammar.after_thinking` puts after the reasoning."""

    def __init__(self) -> None:
        super().__init__("")
        self._skipping = 0

    def push(self, text: str) -> str:
        """Return the text to give."""
        while self._skipping and text:
            if not BEHIND_THINKING.endswith(text[0]):
                self._skipping = 0
                break
            self._skipping -= 1
            text = text[1:]
        if text:
            self.has_text = True
            self.fresh = False
        return text

    def interrupt(self) -> None:
        """Record that a think block is here."""
        self.fresh = True
        self._skipping = len(BEHIND_THINKING)


def _edges(tokenizer: Any) -> dict[str, dict[str, str]]:
    """Return the edges as in `mlx_lm.generate.make_text_state_machine`: no stop words, but stray think markers."""
    transitions: dict[str, list[tuple[str, str]]] = tokenizer.response_transitions
    edges: dict[str, dict[str, str]] = {NORMAL: {}, REASONING: {}}
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
