"""Server-sent events come out of bytes, however they are cut."""

from __future__ import annotations

import pytest

from localapi.backends.sse import MAX_EVENT_BYTES, EventDecoder, Sent, TooLong

pytestmark = pytest.mark.everyday

STREAM = '\ufeff: hi\r\ndata: a\r\n\r\nevent: ping\ndata:b\ndata: c\n\n\rretry: 5\r\rdata: {"é": 1}\n\n'.encode()
EVENTS = [Sent(b" hi".strip(), is_comment=True), Sent(b"a"), Sent(b"b\nc"), Sent('{"é": 1}'.encode())]


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_the_cuts_do_not_matter(size: int) -> None:
    decoder = EventDecoder()
    found = [item for at in range(0, len(STREAM), size) for item in decoder.feed(STREAM[at : at + size])]
    assert [*found, *decoder.end()] == EVENTS


def test_a_last_event_without_its_blank_line_is_not_lost() -> None:
    decoder = EventDecoder()
    assert [*decoder.feed(b"data: a\n\ndata: b"), *decoder.end()] == [Sent(b"a"), Sent(b"b")]


def test_a_long_line_in_many_pieces_is_one_event() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b": hi\n\n") == [Sent(b"hi", is_comment=True)]
    assert [item for piece in [b"data: a", *[b"b"] * 1000] for item in decoder.feed(piece)] == []
    assert decoder.feed(b"c\n\n") == [Sent(b"a" + b"b" * 1000 + b"c")]


def test_a_carriage_return_at_the_end_of_a_piece_ends_its_line_with_the_next_piece() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r\r") == []
    assert decoder.feed(b"data: b") == [Sent(b"a")]


def test_a_line_without_an_end_is_too_long_at_some_point() -> None:
    decoder = EventDecoder()
    decoder.feed(b": hi\n\n")
    for _ in range(MAX_EVENT_BYTES // 2**20):
        assert decoder.feed(bytes(2**20)) == []
    with pytest.raises(TooLong):
        decoder.feed(b"x")
