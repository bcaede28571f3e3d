"""Run a chat engine as a worker does, without the process around it."""

from __future__ import annotations

from localapi.worker.llm import mlx_lm
from localapi.worker.protocol import Chat, Complete, Event


def run(engine: mlx_lm.MlxLm, *requests: Chat | Complete) -> dict[int, list[Event]]:
    """Every event of these requests, until the engine is idle."""
    for request in requests:
        engine.take(request)
    events: dict[int, list[Event]] = {request.id: [] for request in requests}
    while engine.busy or engine.waiting:  # some wait for their grammars
        for event in engine.step():
            events[event.id].append(event)
    return events
