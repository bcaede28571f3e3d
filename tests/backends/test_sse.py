"""Server-sent events come out of bytes, however they are cut."""

from __future__ import annotations

import pytest

from localapi.backends.sse import EventDecoder, Sent

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
