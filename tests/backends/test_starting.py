"""What is left of a worker whose start is given up: nothing, whenever that comes."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from localapi.backends.worker_engine import start_worker
from tests.conftest import Children


@pytest.mark.parametrize("turns", range(1, 13))
async def test_a_start_that_is_given_up_leaves_no_process(turns: int, children: Children) -> None:
    """After each number of turns of the loop: it is in another place then."""
    start = asyncio.create_task(start_worker("m", "mlx-lm", {"path": "none"}, report=lambda *_: None))
    for _ in range(turns):
        await asyncio.sleep(0)
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    assert children() == set()
