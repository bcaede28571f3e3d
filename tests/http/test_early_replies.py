"""Replies that are sent before the request's body has come, as other people's clients see them: none may be lost."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server import Server, serving

KEY = "key-of-a-test-0123456789"
CHAT = "/v1/chat/completions"
SIZES = [1000, 1_000_000, 20_000_000]

FETCH = """
const [url, key, sizes] = JSON.parse(process.argv[1]);
const good = {Authorization: `Bearer ${key}`};
const refused = [
  [401, "POST", "/v1/chat/completions", {}],
  [401, "POST", "/health/ready", {}],
  [403, "POST", "/v1/audio/speech", {...good, Origin: "https://elsewhere.example"}],
  [404, "POST", "/nothing", good],
  [405, "PUT", "/v1/models", good],
];
const streamed = (size) => new ReadableStream({
  start(controller) {
    for (let at = 0; at < size; at += 65536) controller.enqueue(new Uint8Array(Math.min(65536, size - at)));
    controller.close();
  },
});
const lost = [];
for (const size of sizes) for (const duplex of [undefined, "half"])
for (const [status, method, path, headers] of refused)
  for (let times = 0; times < 5; times++) {
    const body = duplex ? streamed(size) : new Uint8Array(size);
    const got = await fetch(url + path, {method, headers, body, duplex}).then(
      async (reply) => (await reply.json()) && reply.status, (error) => error.cause?.code ?? String(error));
    if (got !== status) lost.push([size, method, path, duplex ?? "whole", got]);
  }
console.log(JSON.stringify(lost));
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("early")
    (folder / "key").write_text(KEY)
    manifest = "server: {api_keys: {me: {file: key, admin: true}}}\nchat: {m: {backend: echo}}"
    with serving(folder, manifest) as server:
        yield server


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_nodes_fetch_gets_every_refusal_whatever_it_sends(server: Server) -> None:
    command = ["node", "--input-type=module", "-e", FETCH, json.dumps([server.url, KEY, SIZES])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.stderr == ""
    assert json.loads(done.stdout) == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl_gets_the_refusal(server: Server, tmp_path: Path, size: int, expect: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * size)
    sent = ["-H", expect, "--data-binary", f"@{body}", f"{server.url}{CHAT}"]
    command = ["curl", "-sS", "-w", "%{http_code}", *sent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout[-3:]) == (0, "401"), done.stderr


@pytest.mark.parametrize("size", SIZES)
def test_the_official_client_gets_the_refusal(server: Server, size: int) -> None:
    said: Any = [{"role": "user", "content": "x" * size}]
    with pytest.raises(openai.AuthenticationError):
        server.client().chat.completions.create(model="m", messages=said)
