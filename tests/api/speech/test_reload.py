"""A reply whose entry changes or goes while the request waits for its model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from quart import Response

from localapi.api.openai.speech import spoken
from localapi.api.speech.cache import SpeechCache
from localapi.http import request_context
from localapi.kinds import Kind
from localapi.manifest import Manifest, ManifestSource, read
from localapi.manifest.environment import NO_OVERRIDES
from localapi.observability.counters import Counters
from localapi.runtime.queue import Ticket
from localapi.runtime.registry import Lease, Registry

pytestmark = pytest.mark.everyday

TEXT = "Good morning! It is nine."


class Reloading(Registry):
    """A registry that gets another manifest just before or after a lease is taken."""

    before: Manifest | None = None
    after: Manifest | None = None

    @asynccontextmanager
    async def lease(self, name: str, kind: Kind, ticket: Ticket | None = None) -> AsyncIterator[Lease]:
        if self.before is not None:
            self.commit(self.before, {})
        async with super().lease(name, kind, ticket) as leased:
            if self.after is not None:
                self.commit(self.after, {})
            yield leased


def manifest(folder: Path, text: str) -> Manifest:
    (folder / "models.yaml").write_text(f"speech:\n{text}")
    return read(ManifestSource(folder / "models.yaml", None, NO_OVERRIDES))


async def reply_of(registry: Registry, **body: object) -> tuple[Response, bytes]:
    here = request_context.begin(Counters())
    async with here.held:
        reply = await spoken(registry, {"model": "tone", "input": TEXT, **body}, SpeechCache())
        return reply, await reply.get_data(as_text=False)


@pytest.mark.parametrize("shape", [{}, {"stream": False}, {"stream_format": "sse"}, {"timestamps": "sentence"}])
async def test_a_request_ends_on_the_model_that_was_removed_meanwhile(tmp_path: Path, shape: dict[str, object]) -> None:
    registry = Reloading()
    registry.commit(manifest(tmp_path, "  tone: {backend: echo, voices: {me: x}}"), {})
    registry.after = manifest(tmp_path, "  other: {backend: echo}")
    reply, data = await reply_of(registry, voice="me", **shape)
    assert reply.status_code == 200
    assert b"error" not in data
    await registry.close()


async def test_the_content_type_is_of_the_format_that_applies_when_the_model_is_there(tmp_path: Path) -> None:
    registry = Reloading()
    registry.commit(manifest(tmp_path, "  tone: {backend: echo}"), {})
    registry.before = manifest(tmp_path, "  tone: {backend: echo, defaults: {response_format: wav}}")
    reply, data = await reply_of(registry)
    assert (reply.content_type, data[:4]) == ("audio/wav", b"RIFF")
    await registry.close()
