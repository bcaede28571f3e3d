"""The latest exchanges are kept within their bounds: in number, in memory, and while they still arrive."""

from __future__ import annotations

import pytest

from localapi.manifest.server_options import CaptureOptions
from localapi.observability.captures import MEGABYTE, Body, Captures, Exchange

pytestmark = pytest.mark.everyday

JSON = "application/json"


def exchange(captures: Captures, name: str, data: bytes = b"", content_type: str = JSON) -> Exchange:
    found = Exchange(name, "POST", "/v1/chat/completions", request=Body(content_type))
    captures.begin(found)
    captures.add(found, found.request, data)
    return found


def names(captures: Captures) -> list[str]:
    return [each.id for each in captures.latest()]


def test_nothing_is_kept_unless_it_is_asked_for() -> None:
    captures = Captures()
    exchange(captures, "a", b"{}")
    assert (captures.enabled, names(captures), captures.bytes) == (False, [], 0)


def test_the_oldest_go_first_by_number_and_by_memory() -> None:
    captures = Captures()
    captures.follow(CaptureOptions(requests=3, max_mb=1))
    for name in "abcd":
        exchange(captures, name, b"x")
    assert names(captures) == ["d", "c", "b"]
    for name in "efghi":
        exchange(captures, name, b"x" * (MEGABYTE // 4))
    assert captures.bytes <= MEGABYTE
    assert names(captures)[0] == "i"


def test_a_body_that_is_too_large_is_cut_and_one_that_is_no_text_is_counted() -> None:
    captures = Captures()
    captures.follow(CaptureOptions(max_mb=1))
    large = exchange(captures, "large", b"x" * 100_000)
    captures.add(large, large.request, b"y" * MEGABYTE)
    captures.add(large, large.request, b"z")
    assert (bytes(large.request.data), large.request.size, large.request.is_cut) == (
        b"x" * 100_000, 100_001 + MEGABYTE, True,
    )  # fmt: skip
    sound = exchange(captures, "sound", b"RIFF", "audio/wav")
    assert (sound.request.size, bytes(sound.request.data)) == (4, b"")


def test_what_made_room_takes_no_more_memory_while_it_arrives() -> None:
    captures = Captures()
    captures.follow(CaptureOptions(requests=1))
    first = exchange(captures, "first", b"{}")
    exchange(captures, "second", b"{}")
    captures.add(first, first.reply, b"late")
    assert (bytes(first.request.data), captures.bytes) == (b"", 2)


def test_an_edit_that_switches_it_or_its_contents_off_forgets_them() -> None:
    captures = Captures()
    for limits in (None, CaptureOptions(contents=False)):
        captures.follow(CaptureOptions())
        exchange(captures, "a", b"{}")
        captures.follow(limits)
        assert (names(captures), captures.bytes) == ([], 0)
    assert bytes(exchange(captures, "b", b"{}").request.data) == b""
    assert names(captures) == ["b"]
