"""Stop strings, and the text of one response while it grows.

`AnswerText` turns tokens into text, without leading whitespace and without anything from a stop string on. In chat, a
client's stop strings apply only to the content, so `parser.OutputParser` looks for them and `AnswerText` does not.

Stop strings are matched on text, character by character, so it does not matter how the model split it into tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from localapi.worker.llm.detokenizer import TextStream


class StopStrings:
    """Search for stop strings in a text that arrives in pieces.

    The first one to be complete wins; at a tie, the longest. Text that may be the start of a stop string is held back
    and returned as soon as it turns out not to be. The work per character is constant for each stop string, however
    long it is (Knuth, Morris, Pratt).
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = sorted({s for s in stop if s}, key=len, reverse=True)
        self._borders = [_borders(s) for s in self._stop]
        self._matched = [0] * len(self._stop)
        self._held = ""
        self.found: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str) -> tuple[str, bool]:
        """Return the text that is certain not to be part of a stop string, and whether one was found."""
        if not self._stop:
            return text, False
        for at, character in enumerate(text, start=len(self._held) + 1):
            completed = 0
            for i, stop in enumerate(self._stop):
                self._matched[i] = _extended(stop, self._borders[i], self._matched[i], character)
                if self._matched[i] == len(stop):
                    completed = max(completed, len(stop))
            if completed:
                whole = self._held + text
                self.found = whole[at - completed : at]
                return whole[: at - completed], True
        text = self._held + text
        certain = len(text) - max(self._matched)
        self._held = text[certain:]
        return text[:certain], False

    def finds(self, text: str) -> bool:
        """Return True if this text, if it came next, would complete a stop string."""
        trial = copy.copy(self)
        trial._matched = list(self._matched)
        return trial.push(text)[1]

    def finish(self) -> str:
        """Return what was held back for an incomplete stop string."""
        return self._held


class AnswerText:
    """Text of one response, from its tokens. `stopped` becomes True at a stop string; nothing follows then."""

    def __init__(self, text: TextStream, stop: Sequence[str] = (), *, verbatim: bool = False) -> None:
        """Start a text; with `verbatim`, leading whitespace is part of it, as when a text is continued."""
        self._text = text
        self._stop = StopStrings(stop)
        self._begun = verbatim
        self.stopped = False

    @property
    def stop_string(self) -> str | None:
        """Stop string that ended the answer."""
        return self._stop.found

    def push(self, token: int) -> str:
        """Return the text that this token adds to the answer."""
        return self._grow(self._text.push(token))

    def finish(self) -> str:
        """Return the rest of the response, after the last token."""
        if self.stopped:
            return ""
        rest = self._grow(self._text.finish())
        return rest if self.stopped else rest + self._stop.finish()

    def _grow(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        if not text:
            return ""
        text, self.stopped = self._stop.push(text)
        return text


def _borders(stop: str) -> list[int]:
    """Return, for each prefix of `stop`, the length of its longest proper prefix that is also its suffix."""
    borders = [0] * len(stop)
    for i in range(1, len(stop)):
        borders[i] = _extended(stop, borders, borders[i - 1], stop[i])
    return borders


def _extended(stop: str, borders: list[int], matched: int, character: str) -> int:
    """Return how much of the stop string matches after one more character."""
    while matched and stop[matched] != character:
        matched = borders[matched - 1]
    return matched + (stop[matched] == character)
