"""Embeddings and rerank over HTTP, with the echo backends and OpenAI's client."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.server import Reply, Server, serving

MANIFEST = """\
chat: {bird: {backend: echo}}
embedding:
  words: {backend: echo, matryoshka: true, aliases: [text-embedding-3-small]}
  fixed: {backend: echo, prefixes: {query: "find ", document: "found "}}
rerank:
  judge: {backend: echo}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("vectors"), MANIFEST) as server:
        yield server


def embed(server: Server, **body: Any) -> Reply:
    return server.request("POST", "/v1/embeddings", {"model": "words", "input": "a cat", **body})


def vectors(server: Server, **body: Any) -> list[list[float]]:
    reply = embed(server, **body)
    assert reply.status == 200, reply.body
    return [each["embedding"] for each in reply.json()["data"]]


def test_openais_client_gets_numbers_although_it_asks_for_base64(server: Server) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        reply = client.embeddings.create(model="text-embedding-3-small", input=["a cat", "a dog", "cat a"])
    one, other, same = (each.embedding for each in reply.data)
    assert one == same != other
    assert sum(number * number for number in one) == pytest.approx(1)
    assert reply.usage.total_tokens == 6
    assert [each.index for each in reply.data] == [0, 1, 2]


def test_base64_holds_the_same_numbers(server: Server) -> None:
    reply = embed(server, encoding_format="base64").json()
    encoded = reply["data"][0]["embedding"]
    assert array("f", base64.b64decode(encoded)).tolist() == vectors(server)[0]


@pytest.mark.parametrize(
    ("given", "count"),
    [("a cat", 1), (["a cat", "a dog"], 2), ([5, 6], 1), ([[5], [6, 7]], 2), (["x"] * 2048, 2048)],
)
def test_every_form_of_input_is_read(server: Server, given: Any, count: int) -> None:
    assert len(vectors(server, input=given)) == count


@pytest.mark.parametrize(
    "given", ["", [], ["a", ""], [[]], [[1], []], ["a", 1], [1.5], [-1], {"text": "a"}, 5, None, ["x"] * 2049]
)
def test_other_input_is_refused_by_name(server: Server, given: Any) -> None:
    reply = embed(server, input=given)
    assert reply.status == 400
    assert reply.json()["error"]["param"].startswith("input")


def test_vectors_are_as_long_as_asked_if_the_entry_allows_it(server: Server) -> None:
    assert len(vectors(server, dimensions=8)[0]) == 8
    for model, dimensions in (("fixed", 8), ("words", 257), ("words", 10**9)):
        refused = embed(server, model=model, dimensions=dimensions)
        assert (refused.status, refused.json()["error"]["param"]) == (400, "dimensions")


def test_the_type_of_input_chooses_a_prefix(server: Server) -> None:
    query, document, none = (
        vectors(server, model="fixed", input="a cat", **more)[0]
        for more in ({"input_type": "query"}, {"input_type": "search_document"}, {})
    )
    assert query == vectors(server, model="fixed", input="find a cat")[0]
    assert document == vectors(server, model="fixed", input="found a cat")[0]
    assert none == vectors(server, model="words", input="a cat")[0]


def test_unknown_fields_are_named(server: Server) -> None:
    assert embed(server, mood="good").headers["x-ignored-params"] == "mood"


@pytest.mark.parametrize(("path", "model"), [("/v1/embeddings", "bird"), ("/v1/rerank", "words")])
def test_a_model_of_another_kind_is_refused_with_its_endpoint(server: Server, path: str, model: str) -> None:
    body = {"model": model, "input": "a", "query": "a", "documents": ["a"]}
    reply = server.request("POST", path, body)
    assert (reply.status, reply.json()["error"]["param"]) == (400, "model")


def rerank(server: Server, path: str = "/v1/rerank", **body: Any) -> Reply:
    documents = ["a dog", "the cat is on the sofa", {"text": "a cat", "id": 7}]
    return server.request("POST", path, {"model": "judge", "query": "a cat", "documents": documents, **body})


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_documents_come_back_the_best_first(server: Server, path: str) -> None:
    reply = rerank(server, path, return_documents=True).json()
    assert [each["index"] for each in reply["results"]] == [2, 0, 1]
    assert reply["results"][0]["relevance_score"] == pytest.approx(1)
    assert reply["results"][0]["document"] == {"text": "a cat", "id": 7}
    assert reply["results"][1]["document"] == {"text": "a dog"}


def test_the_best_documents_are_asked_for(server: Server) -> None:
    results = rerank(server, top_n=1).json()["results"]
    assert [each["index"] for each in results] == [2]
    assert "document" not in results[0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": ""}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": [{"id": 1}]}, "documents"),
        ({"top_n": 0}, "top_n"),
    ],
)
def test_a_wrong_request_names_its_field(server: Server, body: dict[str, Any], param: str) -> None:
    reply = rerank(server, **body)
    assert reply.status == 400
    assert reply.json()["error"]["param"].startswith(param)


def test_models_and_metrics_tell_of_them(server: Server) -> None:
    vectors(server)
    models = {each["id"]: each for each in server.request("GET", "/v1/models").json()["data"]}
    assert models["words"]["kind"] == "embedding"
    assert models["words"]["dimensions"] == 256
    assert models["judge"]["kind"] == "rerank"
    assert b'localapi_embedding_texts_total{model="words"}' in server.request("GET", "/metrics").body


def test_tei_clients_get_their_own_form_of_scores_and_name_no_model(server: Server) -> None:
    body = {"query": "a cat", "texts": ["a dog", "a cat"], "raw_scores": False, "return_text": True}
    ranks = server.request("POST", "/rerank", {**body, "truncate": False, "truncation_direction": "Right"}).json()
    assert [(each["index"], each["text"]) for each in ranks] == [(1, "a cat"), (0, "a dog")]
    assert ranks[0]["score"] == pytest.approx(1)
    [raw] = server.request("POST", "/rerank", {**body, "raw_scores": True, "top_n": 1, "return_text": False}).json()
    assert raw["score"] > 10
    assert "text" not in raw


def test_tei_clients_get_bare_vectors(server: Server) -> None:
    reply = server.request("POST", "/embed", {"inputs": "a cat", "model": "words", "normalize": True, "mood": 1})
    assert reply.json() == vectors(server)
    assert reply.headers["x-ignored-params"] == "mood"
    both = server.request("POST", "/embed", {"inputs": ["a", "b"], "model": "words", "dimensions": 8}).json()
    assert [len(each) for each in both] == [8, 8]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/embed", {"inputs": "a cat"}, "model"),  # there are two
        ("/embed", {"inputs": "a", "model": "words", "normalize": False}, "normalize"),
        ("/embed", {"inputs": "", "model": "words"}, "inputs"),
        ("/rerank", {"query": "a", "texts": []}, "texts"),
        ("/rerank", {"query": "a", "texts": ["a"], "truncation_direction": "Left"}, "truncation_direction"),
        ("/rerank", {"query": "a", "documents": ["a"]}, "model"),
    ],
)
def test_what_cannot_be_done_in_the_form_of_tei_is_refused(
    server: Server, path: str, body: dict[str, Any], param: str
) -> None:
    reply = server.request("POST", path, body)
    assert (reply.status, reply.json()["error"]["param"]) == (400, param)
