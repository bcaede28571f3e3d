"""A text as it will be said: cleaned, its words replaced, cut into segments. What a dry run shows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from localapi.text.clean import clean, is_speakable
from localapi.text.lexicon import Lexicon
from localapi.text.markup import Manner, Marked, read_markup

_ENDS = re.compile(r"[.!?:;\u2026\u3002\uff01\uff1f\u061f\u0964][\"'\u201d\u2019)\]\u00bb\u300d\s]*\Z|\n\s*\Z")
"""The end of a sentence."""


_LOOKED_AT = 200
"""Characters at the end of a text, to see whether its sentence has ended."""


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
    manners: list[Manner] = field(default_factory=list)
    """How each segment is to be said."""
    pauses: Mapping[int, float] = field(default_factory=dict)
    """Seconds of silence before segments, in place of the usual silence; before the one after the last: at the end."""
    ignored: list[str] = field(default_factory=list)
    """Names of markup that was left out."""


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

    marked = read_markup(text)
    cleaned = clean(speakable(marked.text) if markdown else marked.text)
    words, replaced = Lexicon(lexicon), list[Replaced]()
    segments, manners = list[str](), list[Manner]()
    goes_on, pauses = dict[int, str](), dict[int, float]()
    before = ""
    for passage in _passages(marked, cleaned, words, replaced):
        if passage.pause_seconds is not None:
            pauses[len(segments)] = pauses.get(len(segments), 0.0) + passage.pause_seconds
        found = [
            segment
            for segment in sentences(passage.text, language=passage.manner.language or language, apart=apart)
            if is_speakable(segment.text)
        ]
        if found and segments and len(segments) not in pauses and not _ENDS.search(before):
            goes_on[len(segments) - 1] = " " * (before[-1:].isspace() or passage.text[:1].isspace())
        before = (passage.text if found else before + passage.text)[-_LOOKED_AT:]
        for index, (segment, after) in enumerate(itertools.pairwise(found), len(segments)):
            if segment.goes_on:
                goes_on[index] = " " * (after.start > segment.end)
        segments += [segment.text for segment in found]
        manners += [passage.manner] * len(found)
    return Script(segments, replaced, goes_on, manners, pauses, marked.ignored)


@dataclass
class _Passage:
    """Text that is said in one manner, without a pause."""

    text: str
    manner: Manner
    pause_seconds: float | None


def _passages(marked: Marked, cleaned: str, words: Lexicon, replaced: list[Replaced]) -> list[_Passage]:
    """The text between pauses and changes of manner, with its words replaced; what was replaced goes to the list."""
    passages = [_Passage("", Manner(), None)]
    for mark, text in marked.parts(cleaned):
        said = text
        if not mark.is_literal:
            replaced += [Replaced(text[each.start : each.end], each.said) for each in words.applied(text)]
            said = words.apply(text)
        if mark.pause_seconds is None and mark.manner == passages[-1].manner:
            passages[-1].text += said
        else:
            passages.append(_Passage(said, mark.manner, mark.pause_seconds))
    return passages
