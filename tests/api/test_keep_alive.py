"""`keep_alive` of requests through OpenAI's API, within what the manifest allows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.server import Reply, Server, serving

MANIFEST = """
server: {keep_alive: 30m, max_keep_alive: forever}
chat:
  free: {backend: echo}
  bound: {backend: echo, max_keep_alive: 1h}
embedding:
  vectors: {backend: echo}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("keep-alive"), MANIFEST) as server:
        yield server


def ask(server: Server, model: str, keep_alive: Any, path: str = "/v1/chat/completions", **more: Any) -> Reply:
    content = {"messages": [{"role": "user", "content": "hi"}]} if path.endswith("chat/completions") else more
    return server.request("POST", path, {"model": model, **content, "keep_alive": keep_alive})


@pytest.mark.parametrize(
    ("path", "model", "more"),
    [
        ("/v1/chat/completions", "free", {}),
        ("/v1/completions", "free", {"prompt": "hi"}),
        ("/v1/responses", "free", {"input": "hi", "store": False}),
        ("/v1/embeddings", "vectors", {"input": "hi"}),
    ],
)
def test_zero_unloads_the_model_after_the_reply(server: Server, path: str, model: str, more: dict[str, Any]) -> None:
    assert ask(server, model, "10m", path, **more).status == 200
    assert server.model(model)["state"] == "ready"
    reply = ask(server, model, 0, path, **more)
    assert (reply.status, reply.headers.get("x-ignored-params")) == (200, None)
    server.wait_for(f"{model}: unloaded")


@pytest.mark.parametrize(
    ("model", "keep_alive", "overruled"),
    [("free", -1, None), ("bound", "59m", None), ("bound", "61m", "keep_alive"), ("bound", -1, "keep_alive")],
)
def test_more_than_the_manifest_allows_is_shortened_and_named(
    server: Server, model: str, keep_alive: Any, overruled: str | None
) -> None:
    reply = ask(server, model, keep_alive)
    assert (reply.status, reply.headers.get("x-locked-params")) == (200, overruled)
    if model == "bound":
        (listed,) = [each for each in server.get("/api/ps")["models"] if each["name"] == model]
        left = datetime.fromisoformat(listed["expires_at"]) - datetime.now(UTC)
        assert left <= timedelta(hours=1)


@pytest.mark.parametrize("keep_alive", ["soon", True, [1], "5 m"])
def test_what_is_no_time_is_refused(server: Server, keep_alive: Any) -> None:
    reply = ask(server, "free", keep_alive)
    assert (reply.status, reply.json()["error"]["param"]) == (400, "keep_alive")
