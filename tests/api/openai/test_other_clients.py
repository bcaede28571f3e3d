"""OpenAI's client for Node and LangChain with transcription and embedding models. They take `--long`.

Skipped if the packages cannot be had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localapi.audio.encoder import encoded
from localapi.audio.formats import FORMATS
from tests.documents.conftest import PYTHON_PACKAGES, node_folder  # noqa: F401  # a fixture
from tests.server import Server, serving

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MANIFEST = "transcription: {ears: {backend: echo}}\nembedding: {vectors: {backend: echo}}"
FORMATS_OF_TEXT = ("json", "text", "srt", "vtt", "verbose_json")
NODE = """
import fs from "fs";
import OpenAI from "openai";

const [address, path, formats] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "unused", maxRetries: 0 });
const asked = () => ({ model: "ears", file: fs.createReadStream(path) });
const told = { formats: {}, events: [] };
for (const format of formats.split(",")) {
  const granularities = format === "verbose_json" ? { timestamp_granularities: ["word", "segment"] } : {};
  told.formats[format] = await client.audio.transcriptions.create(
    { ...asked(), response_format: format, ...granularities });
}
for await (const event of await client.audio.transcriptions.create({ ...asked(), stream: true })) {
  told.events.push(event);
}
told.refusal = await client.audio.transcriptions
  .create({ ...asked(), response_format: "diarized_json" })
  .catch(({ status, param }) => ({ status, param }));
const input = ["A cat sits on the mat.", "A dog lies on the sofa."];
const bySelf = await client.embeddings.create({ model: "vectors", input });
const asFloats = await client.embeddings.create({ model: "vectors", input, encoding_format: "float" });
told.vectors = [bySelf, asFloats].map(({ data }) => data.map(({ embedding }) => embedding));
console.log(JSON.stringify(told));
"""
STANDARD_TESTS = """
import os
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestVectors(EmbeddingsIntegrationTests):
    embeddings_class = OpenAIEmbeddings
    embedding_model_params = {
        "base_url": os.environ["ADDRESS"], "api_key": "unused", "model": "vectors", "check_embedding_ctx_length": False,
    }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("clients"), MANIFEST) as server:
        yield server


def test_openai_for_node_gets_transcripts_in_all_formats_streams_and_vectors(
    server: Server,
    node_folder: Path,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    (tmp_path / "sound.wav").write_bytes(encoded(bytes(2 * 16_000 * 12), FORMATS["wav"], 16_000))
    (node_folder / "sound-and-vectors.mjs").write_text(NODE)
    command = ["node", "sound-and-vectors.mjs", server.url, str(tmp_path / "sound.wav"), ",".join(FORMATS_OF_TEXT)]
    done = subprocess.run(command, cwd=node_folder, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    text = told["formats"]["json"]["text"]
    assert told["formats"]["text"].strip() == text
    assert told["formats"]["srt"].startswith("1\n00:00:00,000 --> ")
    assert told["formats"]["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert len(told["formats"]["verbose_json"]["segments"]) == 2
    assert told["formats"]["verbose_json"]["words"]
    assert "".join(event.get("delta", "") for event in told["events"]) == told["events"][-1]["text"] == text
    assert told["refusal"] == {"status": 400, "param": "response_format"}
    assert told["vectors"][0] == told["vectors"][1]


def test_langchain_s_standard_tests_of_embeddings_pass(server: Server, tmp_path: Path) -> None:
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    (tmp_path / "test_vectors.py").write_text(STANDARD_TESTS)
    packages = f"{PYTHON_PACKAGES['langchain_openai']},langchain-tests==1.1.9"
    python = ["uv", "run", "-q", "--no-project", "--python", sys.executable, "--with", packages, "python"]
    made = subprocess.run([*python, "-c", ""], capture_output=True, text=True, timeout=300, check=False)
    if made.returncode != 0:
        pytest.skip(f"uv could not install {packages}: {made.stderr[-300:]}")
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--disable-socket", "--allow-hosts=127.0.0.1"]
    done = subprocess.run(
        [*python, "-m", "pytest", *options, "test_vectors.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ADDRESS": f"{server.url}/v1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
