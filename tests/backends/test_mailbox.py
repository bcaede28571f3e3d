"""What `/status` says of a request is what came last of it."""

from __future__ import annotations

import pytest

from localapi.backends.worker_engine import Mailbox
from localapi.worker.protocol import Delta, Prefill

pytestmark = pytest.mark.everyday


def test_a_prompt_is_read_when_there_is_text_whatever_was_told_of_it() -> None:
    """The last part of a prompt is not told where it is done in one step."""
    mailbox = Mailbox()
    mailbox.put(Prefill(1, 64, 200))
    assert mailbox.prefill == Prefill(1, 64, 200)
    mailbox.put(Delta(1, "text", 0))
    assert mailbox.prefill is None
