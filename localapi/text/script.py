"""A text as it will be said: cleaned, its words replaced, cut into segments. What a dry run shows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from localapi.text.clean import clean, is_speakable
from localapi.text.lexicon import Lexicon


@dataclass(frozen=True)
class Replaced:
    """A word of the lexicon that the text holds."""

    written: str
    said: str


@dataclass(frozen=True)
class Script:
    """What an engine is given."""

    segments: list[str]
    """Each with something to say; none where the text has nothing."""
    replaced: list[Replaced]
    """In the order of the text."""
    goes_on: Mapping[int, str] = field(default_factory=dict)
    """Numbers of the segments whose last sentence goes on in the next one, with the white space between both."""

    def text(self, first: int, last: int) -> str:
        """What these segments say, up to the last and with it."""
        spaced = [self.segments[index] + self.goes_on.get(index, " ") for index in range(first, last)]
        return "".join([*spaced, self.segments[last]])


def script_of(
    text: str,
    *,
    markdown: bool = False,
    lexicon: Mapping[str, str],
    language: str | None = None,
    apart: bool = False,
) -> Script:
    """The script of a text. `markdown` makes marks, links and emoji speakable; `language` None is seen by the letters.

    `apart` makes each sentence a segment by itself; otherwise short ones are put together.

    Takes milliseconds, and the first time some tenths of a second.
    """
    from localapi.text.sentences import sentences  # noqa: PLC0415  # costly, and only needed where something is said
    from localapi.text.speakable import speakable  # noqa: PLC0415

    said = clean(speakable(text) if markdown else text)
    words = Lexicon(lexicon)
    found = words.applied(said)
    segments = sentences(words.apply(said), language=language, apart=apart)
    spoken = [segment for segment in segments if is_speakable(segment.text)]
    return Script(
        [segment.text for segment in spoken],
        [Replaced(said[each.start : each.end], each.said) for each in found],
        {
            index: " " * (after.start > segment.end)
            for index, (segment, after) in enumerate(itertools.pairwise(spoken))
            if segment.goes_on
        },
    )
