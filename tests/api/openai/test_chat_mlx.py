"""Chat end to end on a real MLX model in a worker: exact answers, company, cancelling, dying."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.conftest import DIALOGUES
from tests.server import NO_WORK, Server, serving, stream_text

FRANCE = "What is the capital of France?"
STORY = "Tell me a story."


def ask(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


@pytest.fixture(scope="module")
def server(tiny_model: Path, endless_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    manifest = f"""
chat:
  tiny: {{backend: mlx-lm, path: {tiny_model}, defaults: {{temperature: 0}}}}
  other: {{backend: mlx-lm, path: {tiny_model}, defaults: {{temperature: 0}}}}
  drafted: {{backend: mlx-lm, path: {tiny_model}, draft: {tiny_model}, defaults: {{temperature: 0}}}}
  endless: {{backend: mlx-lm, path: {endless_model}, defaults: {{temperature: 0}}}}
"""
    with serving(tmp_path_factory.mktemp("mlx"), manifest) as server:
        yield server


@pytest.mark.parametrize(("question", "answer"), DIALOGUES.items())
def test_the_openai_client_gets_the_exact_answer_whole_and_streamed(server: Server, question: str, answer: str) -> None:
    client = server.client()
    whole = client.chat.completions.create(model="tiny", messages=ask(question))
    stream = client.chat.completions.create(model="tiny", messages=ask(question), stream=True)
    assert (whole.choices[0].message.content, stream_text(stream)) == (answer, answer)
    assert whole.choices[0].finish_reason == "stop"


async def test_with_a_draft_model_answers_are_as_exact_and_come_in_one_batch(
    server: Server,
) -> None:
    async with server.async_client() as client:
        chat = client.chat.completions
        replies = await asyncio.gather(*(chat.create(model="drafted", messages=ask(each)) for each in DIALOGUES))
        assert [reply.choices[0].message.content for reply in replies] == [*DIALOGUES.values()]
        batched = {model.id: model.model_dump()["batched"] async for model in await client.models.list()}
    assert batched == {"tiny": True, "other": True, "drafted": True, "endless": True}


async def test_sixteen_concurrent_streams_get_their_own_exact_answers(server: Server) -> None:
    async with server.async_client() as client:

        async def one(question: str) -> str:
            stream = await client.chat.completions.create(model="tiny", messages=ask(question), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        answers = await asyncio.gather(*(one(question) for question in [*DIALOGUES] * 4))
    assert answers == [*DIALOGUES.values()] * 4


def test_usage_counts_what_the_tokenizer_counts(server: Server, tiny_model: Path) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415

    usage = server.client().chat.completions.create(model="tiny", messages=ask(FRANCE)).usage
    assert usage
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    prompt = f"<|im_start|>user\n{FRANCE}<|im_end|>\n<|im_start|>assistant\n"
    assert usage.prompt_tokens == len(tokenizer.encode(prompt))
    assert usage.completion_tokens == len(tokenizer.encode(DIALOGUES[FRANCE] + "<|im_end|>"))
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("stop", ["Paris", " is P", ["zzz", "aris"], "."])
def test_stop_text_is_exact_across_tokens(server: Server, stop: Any) -> None:
    answer = DIALOGUES[FRANCE]
    first = stop if isinstance(stop, str) else stop[1]
    client = server.client()
    whole = client.chat.completions.create(model="tiny", messages=ask(FRANCE), stop=stop)
    stream = client.chat.completions.create(model="tiny", messages=ask(FRANCE), stop=stop, stream=True)
    assert whole.choices[0].message.content == answer[: answer.index(first)]
    assert stream_text(stream) == answer[: answer.index(first)]
    assert whole.choices[0].finish_reason == "stop"


def test_max_tokens_ends_with_length_and_counts(server: Server) -> None:
    reply = server.client().chat.completions.create(model="tiny", messages=ask(STORY), max_tokens=5)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage
    assert reply.usage.completion_tokens == 5
    assert DIALOGUES[STORY].startswith(reply.choices[0].message.content or "never")


def test_the_same_seed_gives_the_same_text(server: Server) -> None:
    def say(seed: int) -> str | None:
        reply = server.client().chat.completions.create(
            model="tiny", messages=ask("blah"), temperature=1.5, seed=seed, max_tokens=30
        )
        return reply.choices[0].message.content

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(2, 8)}) > 1


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"prompt has \d+ tokens.*context is 2048 tokens") as caught:
        server.client().chat.completions.create(model="tiny", messages=ask("word " * 3000), stream=True)
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_leaves_frees_its_model_streamed_or_not(server: Server) -> None:
    client = server.client()
    stream = client.chat.completions.create(model="endless", messages=ask("go"), stream=True)
    next(iter(stream))
    assert server.model("endless")["leases"] == 1
    stream.close()
    wait_until_free(server, "endless")
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(model="endless", messages=ask("go"))
    wait_until_free(server, "endless")
    assert server.client().chat.completions.create(model="endless", messages=ask("go"), max_tokens=3).usage


def test_the_status_tells_what_a_model_is_at(server: Server) -> None:
    def requests() -> dict[str, int]:
        found: dict[str, int] = server.model("endless")["requests"]
        return found

    client = server.client()
    talk = client.chat.completions.create(model="endless", messages=ask("go"), stream=True)
    next(iter(talk))
    assert requests() == {**NO_WORK, "running": 1}
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(
            client.chat.completions.create, model="endless", messages=ask(STORY * 900), max_tokens=1, stream=True
        )
        while not (found := requests())["prompt_tokens_total"]:
            assert found["running"] + found["waiting"] in (1, 2)
        assert 0 < found["prompt_tokens_done"] < found["prompt_tokens_total"]
        long.result().close()
    talk.close()
    wait_until_free(server, "endless")
    assert set(requests().values()) == {0}


def wait_until_free(server: Server, name: str) -> None:
    """The time limit of the test is the bound."""
    while server.model(name)["leases"]:
        pass


def test_a_killed_worker_ends_its_stream_with_an_error_and_the_next_request_loads_again(server: Server) -> None:
    client = server.client()
    client.chat.completions.create(model="other", messages=ask(FRANCE))
    other = server.model("other")
    stream = client.chat.completions.create(model="endless", messages=ask("go"), stream=True)
    chunks = iter(stream)
    next(chunks)
    os.kill(server.model("endless")["place"]["pid"], signal.SIGKILL)
    with pytest.raises(openai.APIError, match="SIGKILL"):
        for _ in chunks:
            pass
    status = server.model("endless")
    assert status["worker_deaths"] == 1
    assert "SIGKILL" in status["last_error"]
    assert client.chat.completions.create(model="endless", messages=ask("go"), max_tokens=3).usage
    assert server.model("endless")["state"] == "ready"
    after = server.model("other")
    assert (after["place"]["pid"], after["loads"]) == (other["place"]["pid"], other["loads"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_a_server_that_ends_in_any_way(
    tiny_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "models.yaml").write_text(f"chat: {{tiny: {{backend: mlx-lm, path: {tiny_model}}}}}")
    server = Server(tmp_path)
    server.client().chat.completions.create(model="tiny", messages=ask(FRANCE), max_tokens=1)
    assert len(server.workers()) == 1
    status = server.stop(number)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)


def test_a_server_killed_while_a_model_loads_leaves_no_worker(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(f"chat: {{tiny: {{backend: mlx-lm, path: {tiny_model}, preload: true}}}}")
    server = Server(tmp_path)
    server.wait_for("tiny: loading")
    while not server.workers():
        pass
    server.stop(signal.SIGKILL)


def test_the_server_itself_imports_no_model_library(server: Server) -> None:
    maps = psutil.Process(server.process.pid).memory_maps()
    assert not [m.path for m in maps if "mlx" in m.path or "tokenizers" in m.path]


def test_a_stream_that_waits_for_a_load_says_so_in_comments(tiny_model: Path, tmp_path: Path) -> None:
    with serving(
        tmp_path, f"chat: {{tiny: {{backend: mlx-lm, path: {tiny_model}, defaults: {{temperature: 0}}}}}}"
    ) as server:
        # The worker is held while it loads, for longer than a stream waits for its status.
        body = {"model": "tiny", "messages": ask(FRANCE), "stream": True}
        import threading  # noqa: PLC0415

        replies: list[bytes] = []
        request = threading.Thread(
            target=lambda: replies.append(server.request("POST", "/v1/chat/completions", body).body)
        )
        request.start()
        while not (workers := server.workers()):
            pass
        workers[0].suspend()
        threading.Event().wait(5)
        workers[0].resume()
        request.join()
    assert b'"state":"loading","model":"tiny"' in replies[0]
    assert replies[0].endswith(b"data: [DONE]\n\n")
