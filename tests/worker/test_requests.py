"""What the loop of a worker passes to its model."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from localapi.worker.__main__ import handle
from localapi.worker.outbox import Outbox
from localapi.worker.protocol import Cancel, Embed, Embedded, Failed


def test_a_request_with_the_id_of_an_unfinished_one_is_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    engine, outbox = Mock(), Outbox(Mock(), Mock())
    first, second = Embed(id=1, inputs=["a"]), Embed(id=1, inputs=["b"])
    handle(first, engine, outbox)
    handle(second, engine, outbox)
    assert [call.args for call in engine.take.call_args_list] == [(first,)]
    assert "came twice" in capsys.readouterr().err


@pytest.mark.parametrize("end", [Embedded(1, [b""], 1), Failed(1, "generation_failed", "broken")])
def test_the_id_of_a_finished_request_may_be_used_again(end: Embedded | Failed) -> None:
    engine, outbox = Mock(), Outbox(Mock(), Mock())
    request = Embed(id=1, inputs=["a"])
    handle(request, engine, outbox)
    outbox.add([end])
    handle(request, engine, outbox)
    assert engine.take.call_count == 2


def test_the_id_of_a_cancelled_request_may_be_used_again() -> None:
    engine, outbox = Mock(), Outbox(Mock(), Mock())
    request = Embed(id=1, inputs=["a"])
    for message in (request, Cancel(1), request):
        handle(message, engine, outbox)
    assert engine.take.call_count == 2
