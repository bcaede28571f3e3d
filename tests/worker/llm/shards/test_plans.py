"""What rank 0 sends before each step."""

from __future__ import annotations

import os
import socket

import mlx.core as mx
import pytest

from localapi.worker.llm.shards.plans import Lead


def test_rank_0_ends_with_one_line_if_a_rank_takes_no_more_plans(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    ours, others = socket.socketpair()
    with ours:
        lead = Lead(mx.distributed.init(), [ours])
        others.close()
        lead.send([], 0)
    assert statuses == [1]
    assert len(capsys.readouterr().err.splitlines()) == 1
