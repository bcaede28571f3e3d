"""New leases wait at the gate while there is a reason to pause."""

from __future__ import annotations

import pytest

from localapi.runtime.gate import Gate, Pause

pytestmark = pytest.mark.everyday


async def test_the_gate_is_closed_until_every_reason_is_gone() -> None:
    gate = Gate()
    for reason in (Pause.SWAP, Pause.MEMORY):
        gate.close(reason)
    assert (gate.open(Pause.UNLOAD), gate.is_open) == (False, False)
    assert (gate.open(Pause.SWAP), gate.is_open) == (True, False)
    assert (gate.open(Pause.MEMORY), gate.is_open) == (True, True)
    await gate.passed()
