"""Prepare a text for an engine: clean it, replace words, split it into segments. A dry run shows the result."""

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
"""Characters at the end of a text in which the end of a sentence is sought."""


@dataclass(frozen=True)
class Replaced:
    """Replaced word of the text."""

    written: str
    said: str


@dataclass(frozen=True)
class Script:
    """Input for an engine."""

    segments: list[str]
    """Speakable segments; empty if there is nothing to say."""
    replaced: list[Replaced]
    """Replaced words, in the order of the text."""
    goes_on: Mapping[int, str] = field(default_factory=dict)
    """Numbers of the segments whose last sentence continues in the next one, with the white space in between."""
    manners: list[Manner] = field(default_factory=list)
    """Manner of each segment."""
    pauses: Mapping[int, float] = field(default_factory=dict)
    """Seconds of silence before segments that replace the default, by number; the number after the last is the end."""
    ignored: list[str] = field(default_factory=list)
    """Names of ignored markup."""


def script_of(
    text: str,
    *,
    markdown: bool = False,
    lexicon: Mapping[str, str],
    language: str | None = None,
    apart: bool = False,
    phonemes: tuple[str, str] | None = None,
) -> Script:
    """Return the script of a text. `markdown` makes markup, links and emoji speakable.

    `phonemes` are the characters around IPA phonemes, for an engine that reads them; otherwise the markup's phonemes
    are dropped.

    If `language` is None, the letters decide. With `apart`, each sentence is a segment; otherwise short ones are
    joined. This takes milliseconds, the first time some tenths of a second.
    """
    from localapi.text.sentences import sentences  # noqa: PLC0415  # costly, and only needed if something is said

    for bracket in phonemes or ():
        text = text.replace(bracket, "")
    marked = read_markup(text, phonemes=phonemes)
    cleaned = marked.text
    if markdown:
        from localapi.text.speakable import speakable  # noqa: PLC0415  # costly, too

        cleaned = speakable(cleaned)
    cleaned = clean(cleaned)
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
    """Text in one manner, without a pause."""

    text: str
    manner: Manner
    pause_seconds: float | None


def _passages(marked: Marked, cleaned: str, words: Lexicon, replaced: list[Replaced]) -> list[_Passage]:
    """Split a text at pauses and changes of manner, and replace words. Add the replaced words to the list."""
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
