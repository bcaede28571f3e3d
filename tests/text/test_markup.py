"""Markup in texts: what of it is honoured, what is left out and named, and what was none."""

from __future__ import annotations

import pytest

from localapi.text.markup import LONGEST_PAUSE_SECONDS, MOST_PAUSE_SECONDS, read_markup
from tests.text.counting import calls


def said(text: str) -> str:
    """Return a text without markup, with pauses as numbers, and with changes of voice and manner."""
    marked = read_markup(text)
    parts = []
    before = ""
    for mark, part in marked.parts(marked.text):
        manner = mark.manner
        how = " ".join(
            [
                *([f"{manner.rate:g}x"] if manner.rate != 1 else []),
                *([f"@{manner.voice}"] if manner.voice else []),
                *([f"={manner.language}"] if manner.language else []),
            ]
        )
        pause = [] if mark.pause_seconds is None else [f"({mark.pause_seconds:g})"]
        parts += [*pause, *([f"<{how}>"] if how != before else []), part]
        before = how
    return " ".join(" ".join(parts).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<speak>Hello <break time='1s'/> world</speak>", "Hello (1) world"),
        ('<break time="500ms"/>Hello', "(0.5) Hello"),
        ("Hello <break strength='strong' /> world", "Hello (0.75) world"),
        ("<speak>a<break/>b</speak>", "a (0.5) b"),
        ("Hello [pause:1s] world", "Hello (1) world"),
        ("Hello [pause=250ms] world [PAUSE 2s] again [break: 1.5]", "Hello (0.25) world (2) again (1.5)"),
        ("one [silence:700] two [wait:1 second] three [pause] four", "one (0.7) two (1) three (0.6) four"),
        ("<prosody rate='slow'>a</prosody> b", "<0.75x> a <> b"),
        ('<speak><prosody rate="50%">a <prosody rate="200%">b</prosody></prosody></speak>', "<0.5x> a <> b <0.5x> <>"),
        ("<speak><prosody rate='+20%'>a</prosody></speak>", "<1.2x> a <>"),
        ("[rate:fast] a [/rate] b [speed:0.5] c", "<1.3x> a <> b <0.5x> c"),
        ("<voice name='nova'>a</voice> b [voice:alloy] c", "<@nova> a <> b <@alloy> c"),
        ("<speak xml:lang='de'>a <lang xml:lang='fr'>b</lang></speak>", "<=de> a <=fr> b <=de>"),
        ("<speak><sub alias='World Wide Web'>WWW</sub> ok</speak>", "World Wide Web ok"),
        ("The <sub alias='World &amp; Web'>WWW</sub>.", "The World & Web ."),
        ("<speak><say-as interpret-as='characters'>W3C</say-as></speak>", "W, 3, C"),
        ("<say-as interpret-as='spell-out'>nato</say-as>", "N, A, T, O"),
        ("<say-as interpret-as='digits'>123 45</say-as>", "1 2 3 4 5"),
        ("<speak><p><s>One</s><s>Two</s></p></speak>", "One Two"),
        ("<speak>Tom &amp; Jerry &lt;3 &#233;</speak>", "Tom & Jerry <3 é"),
        ("<speak><![CDATA[a < b & c]]></speak>", "a < b & c"),
        ('<?xml version="1.0"?>\n<!-- x -->\n<speak>Hi<!-- no --></speak>', "Hi"),
        ("```xml\n<speak>Hi</speak>\n```", "Hi"),
        ("Sure! <speak>Hi <break time='1s'/> you</speak>", "Sure! Hi (1) you"),
    ],
)
def test_the_safe_part_of_markup_is_honoured(text: str, expected: str) -> None:
    assert said(text) == expected
    assert read_markup(text).ignored == []


@pytest.mark.parametrize(
    ("text", "expected", "ignored"),
    [
        ("<speak>a <emphasis level='strong'>b</emphasis></speak>", "a b", ["emphasis"]),
        ("<speak>a <audio src='http://x/y.mp3'>beep</audio></speak>", "a beep", ["audio"]),
        ("<speak><metadata>secret</metadata>a</speak>", "a", ["metadata"]),
        ("<prosody pitch='high' rate='fast'>a</prosody>", "<1.3x> a <>", ["prosody[pitch]"]),
        ("<speak><say-as interpret-as='date'>2024-01-02</say-as></speak>", "2024-01-02", ["say-as[date]"]),
        ("<speak><phoneme alphabet='ipa' ph='x'>a</phoneme></speak>", "a", ["phoneme"]),
        ("<speak><mstts:express-as style='sad'>a</mstts:express-as></speak>", "a", ["mstts:express-as"]),
        ("<speak><amazon:effect name='whispered'>a</amazon:effect></speak>", "a", ["amazon:effect"]),
        ("<speak>a <unknown/> b &bomb;</speak>", "a b", ["unknown", "&bomb;"]),
        ("<speak>a <break time='soon'/> b</speak>", "a (0.5) b", ["break[time]"]),
        ("<speak>a <break time='1s> b</speak>", "a b", ["break[malformed]"]),
        ("<speak><break time='99s'/>a</speak>", "(10) a", ["break[time over 10s]"]),
        ("<mark name='here'/>a <audio src='x.mp3' />", "a", ["mark", "audio"]),
        ("[emotion:happy] a [pitch=high] b", "a b", ["emotion", "pitch"]),
    ],
)
def test_the_rest_is_left_out_and_named(text: str, expected: str, ignored: list[str]) -> None:
    assert said(text) == expected
    assert read_markup(text).ignored == ignored


@pytest.mark.parametrize(
    "text",
    [
        "if a < b && c > d",
        "Tom & Jerry &amp; co",
        "a <mark>marked</mark> word, an <audio> element",
        "H<sub>2</sub>O and x<sup>2</sup>",
        "list<T> and Map<K, V>",
        "the <break> tag, the <voice> tag, and <emphasis> too",
        "Wrap it in <speak> and </speak>, please.",
        "I <3 you",
        "[1] says so [citation needed] [x] [ ] [S1] [laughs]",
        "[pause](https://example.com) [voice:x][1] [pause: now]",
        "press [Pause] or [Break]",
        "[rate:100] [rate: mortgage] the [speed of light]",
        "<",
        "<!-- a comment -->",
        "arr[0] = {a: [1, 2]}",
    ],
)
def test_prose_that_only_looks_like_markup_stays_as_it_is(text: str) -> None:
    assert read_markup(text).text == text
    assert read_markup(text).marks == []


def test_pauses_are_bounded_alone_and_together() -> None:
    marked = read_markup("<speak>a" + "<break time='9999s'/>b" * 100 + "</speak>")
    pauses = [mark.pause_seconds or 0.0 for mark in marked.marks]
    assert max(pauses) == LONGEST_PAUSE_SECONDS
    assert sum(pauses) == MOST_PAUSE_SECONDS


def test_no_entity_is_defined_and_none_grows() -> None:
    bomb = '<!DOCTYPE s [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><speak>x &b; &#0; &#xd800;</speak>'
    assert len(read_markup(bomb).text) < 20
    assert read_markup(bomb).ignored == ["&b;"]


@pytest.mark.parametrize(
    "unit",
    [
        *("<", "<a ", "<!--", "<!DOCTYPE[", "[", "[pause:", "<speak>", "<prosody rate='1'>", "<![CDATA[", "</p>"),
        *("<voice name='a'></voice>", "&a", "<a b='", "<a" + " " * 50, "[pause:1s]", "<emphasis>", "<p>", "<speak "),
    ],
)
@pytest.mark.parametrize("before", ["", "<speak>"])
def test_the_time_grows_with_the_text_however_broken_it_is(unit: str, before: str) -> None:
    short, long = (before + unit * (length // len(unit)) for length in (4_000, 16_000))

    assert calls(read_markup, long) < 5 * calls(read_markup, short)


@pytest.mark.parametrize(
    ("written", "said", "ignored"),
    [
        (
            "I say <phoneme alphabet='ipa' ph='t\u0259\u02c8me\u026a'>tomato</phoneme>.",
            "I say (t\u0259\u02c8me\u026a).",
            [],
        ),
        ("<speak>a <phoneme ph='b &#952;'>c</phoneme> d</speak>", "a (b\u03b8) d", []),
        ("<speak><phoneme alphabet='x-sampa' ph='t@'>a</phoneme></speak>", "a", ["phoneme"]),
        ("<speak><phoneme alphabet='ipa' ph='[]'>a</phoneme></speak>", "a", ["phoneme"]),
    ],
)
def test_phonemes_are_kept_for_engines_that_read_them(written: str, said: str, ignored: list[str]) -> None:
    marked = read_markup(written, phonemes=("(", ")"))
    text = "".join(part for _, part in marked.parts(marked.text))
    assert (text.replace("b ", "b"), marked.ignored) == (said, ignored)
