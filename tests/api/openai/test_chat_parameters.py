"""Every parameter by what it does, through the openai client, on real models in workers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from tests.conftest import DIALOGUES
from tests.server import Server, serving

FRANCE = "What is the capital of France?"
STORY = "Tell me a story."
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        "owner": {
            "type": "object",
            "properties": {"id": {"type": "number"}},
            "required": ["id"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "kind", "age", "tags", "owner"],
    "additionalProperties": False,
}


def ask(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


@pytest.fixture(scope="module")
def server(
    tiny_model: Path, endless_model: Path, untrained_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    manifest = f"""
chat:
  tiny: {{backend: mlx-lm, path: {tiny_model}, defaults: {{temperature: 0}}}}
  noise: {{backend: mlx-lm, path: {untrained_model}}}
  endless: {{backend: mlx-lm, path: {endless_model}}}
  demo: {{backend: mlx-lm, path: demo, defaults: {{temperature: 0}}}}
  locked: {{backend: mlx-lm, path: {tiny_model}, locked: {{temperature: 0, max_tokens: 4}}}}
"""
    with serving(tmp_path_factory.mktemp("parameters"), manifest) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client()


def say(client: openai.OpenAI, model: str, question: str = "go", **parameters: Any) -> str:
    reply = client.chat.completions.create(model=model, messages=ask(question), **parameters)
    return reply.choices[0].message.content or ""


@pytest.mark.parametrize(
    "limit", [{"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}, {"top_p": 1e-6}, {"top_p": 0}]
)
def test_limits_to_the_likeliest_token_are_greedy_at_any_temperature(client: openai.OpenAI, limit: Any) -> None:
    greedy = say(client, "noise", temperature=0, max_tokens=20)
    assert say(client, "noise", temperature=2, max_tokens=20, **limit) == greedy


def test_logit_bias_forces_and_forbids(server: Server, client: openai.OpenAI) -> None:
    answer = DIALOGUES[FRANCE]
    tokens = server.request(
        "POST", "/v1/tokenize", {"model": "tiny", "text": answer, "add_special_tokens": False}
    ).json()
    first, other = tokens["tokens"][0], tokens["tokens"][2]
    forced = client.chat.completions.create(
        model="tiny", messages=ask(FRANCE), logit_bias={str(other): 100}, max_tokens=5, logprobs=True
    )
    assert forced.choices[0].logprobs
    assert forced.choices[0].logprobs.content
    assert len({token.token for token in forced.choices[0].logprobs.content}) == 1
    assert say(client, "tiny", FRANCE) == answer
    assert not say(client, "tiny", FRANCE, logit_bias={str(first): -100}, max_tokens=5).startswith(answer[:1])


def test_a_bias_for_a_token_that_does_not_exist_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="logit_bias names the token 99999") as caught:
        say(client, "tiny", FRANCE, logit_bias={"99999": 5})
    assert caught.value.param == "logit_bias"
    assert say(client, "tiny", FRANCE) == DIALOGUES[FRANCE]


@pytest.mark.parametrize(
    "penalty",
    [{"presence_penalty": 2}, {"frequency_penalty": 2}, {"extra_body": {"repetition_penalty": 10.0}}],
)
def test_penalties_make_an_answer_repeat_itself_less(client: openai.OpenAI, penalty: Any) -> None:
    def variety(**parameters: Any) -> int:
        reply = client.chat.completions.create(
            model="endless", messages=ask("go"), temperature=0, max_tokens=60, logprobs=True, **parameters
        )
        assert reply.choices[0].logprobs
        return len({tuple(token.bytes or ()) for token in reply.choices[0].logprobs.content or ()})

    assert variety(**penalty) > variety()


async def test_a_seed_gives_the_same_tokens_alone_and_in_company(server: Server, client: openai.OpenAI) -> None:
    alone = say(client, "noise", temperature=1.2, seed=7, max_tokens=40)
    async with server.async_client() as many:
        replies = await asyncio.gather(
            *(
                many.chat.completions.create(
                    model="noise", messages=ask("go" if i == 3 else f"other {i}"), temperature=1.2, max_tokens=40,
                    seed=7 if i == 3 else None,
                )
                for i in range(7)
            )
        )  # fmt: skip
    assert replies[3].choices[0].message.content == alone


def test_n_answers_come_from_one_prompt(client: openai.OpenAI) -> None:
    one = client.chat.completions.create(model="noise", messages=ask("go"), max_tokens=8, seed=1)
    four = client.chat.completions.create(model="noise", messages=ask("go"), max_tokens=8, n=4, seed=1, temperature=1.5)
    assert [choice.index for choice in four.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in four.choices}) > 1
    assert one.usage
    assert four.usage
    assert four.usage.prompt_tokens == one.usage.prompt_tokens
    assert 8 < four.usage.completion_tokens <= 32


def test_n_answers_are_streamed_by_their_index(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="tiny", messages=ask(STORY), n=3, stream=True)
    texts = {0: "", 1: "", 2: ""}
    reasons = {}
    for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    assert set(texts.values()) == {DIALOGUES[STORY]}
    assert reasons == {0: "stop", 1: "stop", 2: "stop"}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_are_those_of_the_tokens(client: openai.OpenAI, stream: bool) -> None:
    question = "Say hello in two scripts."
    parameters: Any = {"model": "tiny", "messages": ask(question), "logprobs": True, "top_logprobs": 20}
    if stream:
        chunks = client.chat.completions.create(**parameters, stream=True)
        content = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content or ()]
    else:
        logprobs = client.chat.completions.create(**parameters).choices[0].logprobs
        assert logprobs
        content = logprobs.content or []
    assert bytes(byte for token in content for byte in token.bytes or ()).decode() == DIALOGUES[question]
    for token in content:
        assert len(token.top_logprobs) == 20
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1.0001
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)


def test_a_schema_holds_whatever_the_model_would_say(server: Server) -> None:
    async def samples() -> list[str]:
        async with server.async_client() as many:
            replies = await asyncio.gather(
                *(
                    many.chat.completions.create(
                        model="noise", messages=ask(f"go {i}"), temperature=0.3 + i / 12, max_tokens=1500,
                        reasoning_effort="none",
                        response_format={"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}},
                    )
                    for i in range(20)
                )
            )  # fmt: skip
        # Noise may write a number or a string without end; what ends has to hold.
        ended = [reply.choices[0] for reply in replies if reply.choices[0].finish_reason == "stop"]
        return [choice.message.content or "" for choice in ended]

    texts = asyncio.run(samples())
    assert len(texts) >= 10
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)


def test_json_object_regex_and_grammar_hold_too(client: openai.OpenAI) -> None:
    ended = []
    for seed in range(8):
        reply = client.chat.completions.create(
            model="noise", messages=ask("go"), max_tokens=300, response_format={"type": "json_object"}, seed=seed,
            reasoning_effort="none",
        )  # fmt: skip
        text = reply.choices[0].message.content or ""
        assert text.startswith("{")
        if reply.choices[0].finish_reason == "stop":
            ended.append(json.loads(text))
    assert ended
    assert say(client, "noise", extra_body={"regex": "(yes|no)!"}, reasoning_effort="none") in ("yes!", "no!")
    assert say(
        client, "noise", extra_body={"grammar": 'start: "a" "b"*\n'}, max_tokens=30, reasoning_effort="none"
    ).startswith("a")


@pytest.mark.parametrize("space", [" ", "\n", "\n\n\n", "  \t"])
@pytest.mark.parametrize("thinks", [False, True])
def test_a_form_keeps_its_whitespace_behind_thinking_too(client: openai.OpenAI, thinks: bool, space: str) -> None:
    quoted = json.dumps(space)
    effort: Any = {} if thinks else {"reasoning_effort": "none"}
    for form in ({"regex": f"{space}ab{space}"}, {"grammar": f'start: {quoted} "ab" {quoted}\n'}):
        for model, question in (("demo", "Think about two plus two."), ("noise", "go")):
            if thinks == (model == "noise"):
                continue  # noise would think to the end of its tokens
            whole = client.chat.completions.create(
                model=model, messages=ask(question), extra_body=form, max_tokens=300, **effort
            )
            assert whole.choices[0].message.content == f"{space}ab{space}"
            reasoning = getattr(whole.choices[0].message, "reasoning_content", None)
            assert bool(reasoning) == thinks


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}}, "nonsense"),
        ({"regex": "(("}, ""),
        ({"grammar": "start: nothing"}, ""),
    ],
)
def test_a_form_that_cannot_be_had_is_refused(server: Server, form: Any, words: str) -> None:
    reply = server.request("POST", "/v1/chat/completions", {"model": "noise", "messages": ask("go"), **form})
    assert reply.status == 400
    assert words in reply.json()["error"]["message"]
    assert reply.json()["error"]["param"] == next(iter(form))


@pytest.mark.parametrize("most", [12, 16, 20, 24])
def test_a_call_that_was_cut_is_taken_back_with_its_result(server: Server, most: int) -> None:
    body: Any = {"model": "demo", "messages": ask("What is the weather in Paris?"), "tools": [WEATHER]}
    body |= {"tool_choice": "required", "max_tokens": most}
    message = server.request("POST", "/v1/chat/completions", body).json()["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": None} for call in message.get("tool_calls") or ()
    ]
    body = {**body, "tool_choice": "auto", "messages": [*body["messages"], message, *results]}
    assert server.request("POST", "/v1/chat/completions", body).status == 200


TAGS: Any = {
    "type": "object",
    "properties": {"tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2, "uniqueItems": True}},
    "required": ["tags"],
}


@pytest.mark.parametrize("stream", [False, True])
def test_what_of_a_schema_is_not_kept_is_named_in_a_header(server: Server, stream: bool) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "tags", "schema": TAGS}}
    body = {"model": "noise", "messages": ask("go"), "response_format": form, "max_tokens": 40, "stream": stream}

    reply = server.request("POST", "/v1/chat/completions", body)

    assert reply.status == 200
    assert reply.headers["x-relaxed-params"] == "response_format.schema.properties.tags.uniqueItems"


def test_a_strict_schema_is_kept_to_the_letter_or_refused(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "tags", "schema": TAGS, "strict": True}}
    body = {"model": "noise", "messages": ask("go"), "response_format": form, "max_tokens": 40}

    reply = server.request("POST", "/v1/chat/completions", body)

    assert reply.status == 400
    assert reply.json()["error"]["param"] == "response_format"
    assert "properties.tags.uniqueItems" in reply.json()["error"]["message"]


def test_a_strict_schema_has_no_properties_that_it_does_not_name(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"in": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}},
        "required": ["in"],
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    for seed in range(6):
        text = say(client, "noise", response_format=form, seed=seed, reasoning_effort="none", temperature=1.5)
        answer = json.loads(text)
        assert (answer.keys(), answer["in"].keys()) == ({"in"}, {"a"})


def test_json_object_keeps_to_a_schema_that_stands_beside_it(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"], "additionalProperties": False}
    text = say(
        client,
        "noise",
        response_format={"type": "json_object", "schema": schema},
        reasoning_effort="none",
        temperature=1,
    )
    assert json.loads(text) == {"a": 7}


STRICT: Any = {**WEATHER, "function": {
    **WEATHER["function"],
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"place": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 3}},
        "required": ["place", "days"],
        "additionalProperties": False,
    },
}}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_the_arguments_of_a_strict_tool_keep_to_its_schema_if_the_model_chooses_to_call(
    client: openai.OpenAI, stream: bool
) -> None:
    """The demo was taught to give `city`."""
    asked: Any = {"model": "demo", "messages": ask("What is the weather in Paris?"), "tools": [STRICT]}
    if stream:
        chunks = client.chat.completions.create(**asked, stream=True)
        pieces = [call.function for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
        name = "".join(piece.name or "" for piece in pieces if piece)
        arguments = "".join(piece.arguments or "" for piece in pieces if piece)
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        assert choice.finish_reason == "tool_calls"
        [call] = choice.message.tool_calls or []
        assert call.type == "function"
        name, arguments = call.function.name, call.function.arguments
    assert name == "get_weather"
    jsonschema.validate(json.loads(arguments), STRICT["function"]["parameters"])


def test_beside_a_strict_tool_the_model_answers_as_it_would(client: openai.OpenAI) -> None:
    for question in ("Hello!", "Think about two plus two."):
        plain: Any = client.chat.completions.create(model="demo", messages=ask(question)).choices[0]
        beside: Any = client.chat.completions.create(model="demo", messages=ask(question), tools=[STRICT]).choices[0]
        assert beside.finish_reason == "stop"
        if "Think" in question:
            assert beside.message == plain.message


HOPELESS: Any = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "strin"}}}}}


def test_a_tool_whose_schema_is_hopeless_leaves_the_others_as_they_are(server: Server) -> None:
    body = {
        "model": "demo", "messages": ask("What is the weather in Paris?"), "tools": [WEATHER, HOPELESS],
        "tool_choice": "required", "parallel_tool_calls": False,
    }  # fmt: skip

    reply = server.request("POST", "/v1/chat/completions", body)

    assert reply.status == 200
    [call] = reply.json()["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("get_weather", {"city": "Paris"})
    assert reply.headers["x-relaxed-params"] == "tools[f].parameters"


def test_a_strict_tool_whose_schema_cannot_be_kept_is_refused(server: Server) -> None:
    function = {"name": "f", "strict": True, "parameters": TAGS}
    body = {"model": "demo", "messages": ask("Hello!"), "tools": [{"type": "function", "function": function}]}

    reply = server.request("POST", "/v1/chat/completions", body)

    assert reply.status == 400
    assert reply.json()["error"]["param"] == "tools"


def test_a_tool_call_comes_whole_and_in_pieces(client: openai.OpenAI) -> None:
    question = ask("What is the weather in Paris?")
    whole = client.chat.completions.create(model="demo", messages=question, tools=[WEATHER]).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content is None
    [call] = whole.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    stream = client.chat.completions.create(model="demo", messages=question, tools=[WEATHER], stream=True)
    pieces = [delta for chunk in stream for delta in chunk.choices[0].delta.tool_calls or ()]
    assert [piece.id is not None for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert len(pieces) > 1  # on a busy machine, what came meanwhile is one piece
    streamed = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert json.loads(streamed) == {"city": "Paris"}


@pytest.mark.parametrize("stop", ["Paris", ["city"], ["{", "}"], "tool_call", "\n"])
def test_a_stop_string_does_not_cut_a_call(client: openai.OpenAI, stop: Any) -> None:
    asked = ask("What is the weather in Paris?")
    question: Any = {"model": "demo", "messages": asked, "tools": [WEATHER], "stop": stop}
    whole = client.chat.completions.create(**question).choices[0]
    [call] = whole.message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert whole.finish_reason == "tool_calls"
    chunks = list(client.chat.completions.create(**question, stream=True))
    pieces = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or ()]
    streamed = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert json.loads(streamed) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(("stop", "content"), [("\n", "Four."), ("Two", "Four."), ("ou", "F"), ("</think>", "Four.")])
def test_a_stop_string_ends_the_answer_and_not_the_thinking(client: openai.OpenAI, stop: str, content: str) -> None:
    message: Any = client.chat.completions.create(
        model="demo", messages=ask("Think about two plus two."), stop=stop
    ).choices[0].message  # fmt: skip
    assert (message.reasoning_content, message.content) == ("Two and two make four.", content)


def test_a_call_that_max_tokens_cuts_ends_by_length(client: openai.OpenAI) -> None:
    question: Any = {"model": "demo", "messages": ask("What is the weather in Paris?"), "tools": [WEATHER]}
    for most in (1, 8, 12):
        choice = client.chat.completions.create(**question, max_tokens=most).choices[0]
        assert choice.finish_reason == "length"
        assert "Paris" not in str(choice.message)


def test_without_tools_or_with_none_nothing_is_called(client: openai.OpenAI) -> None:
    question = ask("What is the weather in Paris?")
    for parameters in ({}, {"tools": [WEATHER], "tool_choice": "none"}):
        reply: Any = client.chat.completions.create(model="demo", messages=question, **parameters)  # type: ignore[call-overload]
        assert reply.choices[0].message.tool_calls is None
        assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_that_is_required_is_made_with_arguments_that_fit(client: openai.OpenAI, choice: Any) -> None:
    other: Any = {"type": "function", "function": {"name": "noop", "parameters": {"type": "object", "properties": {}}}}
    reply = client.chat.completions.create(
        model="demo", messages=ask("Hello!"), tools=[WEATHER, other], tool_choice=choice, temperature=1, max_tokens=400,
        parallel_tool_calls=False, seed=5,
    )  # fmt: skip
    [call] = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    named = WEATHER["function"]["parameters"] if call.function.name == "get_weather" else {"type": "object"}
    jsonschema.validate(json.loads(call.function.arguments), named)
    assert call.function.name in (["get_weather"] if isinstance(choice, dict) else ["get_weather", "noop"])


def test_thinking_goes_apart_from_the_answer(client: openai.OpenAI) -> None:
    question = ask("Think about two plus two.")
    reply: Any = client.chat.completions.create(model="demo", messages=question)
    message = reply.choices[0].message
    assert (message.reasoning_content, message.content) == ("Two and two make four.", "Four.")
    assert reply.usage.completion_tokens_details.reasoning_tokens > 0
    stream: Any = client.chat.completions.create(model="demo", messages=question, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "Two and two make four."
    assert "".join(d.content or "" for d in deltas) == "Four."


def test_an_answer_that_has_begun_is_written_on(client: openai.OpenAI) -> None:
    messages = [*ask(FRANCE), {"role": "assistant", "content": "The capital of"}]
    reply = client.chat.completions.create(model="tiny", messages=messages, extra_body={"continue_final_message": True})
    assert reply.choices[0].message.content == " France is Paris."


def test_the_same_prompt_again_is_cached_and_answers_the_same(client: openai.OpenAI) -> None:
    question = ask(f"{FRANCE} " + "padding " * 60)
    first = client.chat.completions.create(model="tiny", messages=question, max_tokens=10)
    again = client.chat.completions.create(model="tiny", messages=question, max_tokens=10)
    assert first.usage
    assert again.usage
    assert again.usage.prompt_tokens_details
    assert 0 < (again.usage.prompt_tokens_details.cached_tokens or 0) < again.usage.prompt_tokens
    assert again.choices[0].message.content == first.choices[0].message.content


def test_a_prompt_kept_on_disk_is_cached_after_a_restart(tiny_model: Path, tmp_path: Path) -> None:
    options = "defaults: {temperature: 0}, prefix_cache_disk_mb: 50"
    manifest = f"chat: {{tiny: {{backend: mlx-lm, path: {tiny_model}, {options}}}}}"
    question = ask(f"{FRANCE} " + "padding " * 60)
    answers = []
    for _ in range(2):
        with serving(tmp_path, manifest, env={"XDG_CACHE_HOME": str(tmp_path / "cache")}) as server:
            reply = server.client().chat.completions.create(model="tiny", messages=question, max_tokens=10)
            assert reply.usage
            assert reply.usage.prompt_tokens_details
            answers.append((reply.choices[0].message.content, bool(reply.usage.prompt_tokens_details.cached_tokens)))
            while not list((tmp_path / "cache").rglob("*.safetensors")):
                pass  # it is written in idle moments
    assert answers[0][0] == answers[1][0]
    assert [cached for _, cached in answers] == [False, True]


def test_a_conversation_that_repeats_prompt_and_answer_exactly_goes_on(client: openai.OpenAI) -> None:
    messages = ask(STORY)
    for _ in range(3):
        reply = client.chat.completions.create(model="tiny", messages=messages, max_tokens=50)
        messages = [*messages, {"role": "assistant", "content": reply.choices[0].message.content}, *ask(STORY)]
    assert reply.usage
    assert reply.usage.prompt_tokens_details
    assert reply.usage.prompt_tokens_details.cached_tokens


def test_locked_parameters_win_and_say_so(server: Server) -> None:
    body = {"model": "locked", "messages": ask(STORY), "temperature": 2, "max_tokens": 50, "max_completion_tokens": 60}
    reply = server.request("POST", "/v1/chat/completions", body)
    choice = reply.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert DIALOGUES[STORY].startswith(choice["message"]["content"])
    assert reply.headers["x-locked-params"] == "max_completion_tokens, max_tokens, temperature"


def test_reasoning_effort_none_and_template_variables_reach_the_template(client: openai.OpenAI) -> None:
    def prompt_tokens(**parameters: Any) -> int:
        usage = client.chat.completions.create(model="demo", messages=ask("Hi"), max_tokens=1, **parameters).usage
        assert usage
        return usage.prompt_tokens

    plain, none = prompt_tokens(), prompt_tokens(reasoning_effort="none")
    assert none > plain
    assert prompt_tokens(extra_body={"chat_template_kwargs": {"enable_thinking": False}}) == none
    assert prompt_tokens(reasoning_effort="high") == plain


def test_completions_continue_texts_and_tokens(server: Server, client: openai.OpenAI) -> None:
    prompt = f"<|im_start|>user\n{FRANCE}<|im_end|>\n<|im_start|>assistant\n"
    tokens = server.request("POST", "/v1/tokenize", {"model": "tiny", "text": prompt}).json()["tokens"]
    for form in (prompt, [prompt], tokens, [tokens]):
        reply = client.completions.create(model="tiny", prompt=form, max_tokens=50)
        assert reply.choices[0].text == DIALOGUES[FRANCE]
    two = client.completions.create(model="tiny", prompt=[prompt, prompt.replace(FRANCE, STORY)], max_tokens=60, n=2)
    assert [c.text for c in two.choices] == [DIALOGUES[FRANCE]] * 2 + [DIALOGUES[STORY]] * 2
    echoed = client.completions.create(model="tiny", prompt=prompt, max_tokens=50, echo=True)
    assert echoed.choices[0].text == prompt + DIALOGUES[FRANCE]


def test_several_prompts_are_answered_at_once(server: Server, client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="endless", prompt=["Never"] * 3, n=2, max_tokens=200, temperature=0, stream=True
    )
    came, ended = list[int](), set[int]()
    for chunk in stream:
        assert chunk.choices[0].index not in ended
        came.append(chunk.choices[0].index)
        ended |= {chunk.choices[0].index} if chunk.choices[0].finish_reason else set()
        if not ended:
            all_began = set(came) == set(range(6))
    assert all_began
    assert ended == set(range(6))
    whole = client.completions.create(model="endless", prompt=["Never", "Twice"], n=2, max_tokens=20, temperature=0)
    alone = [
        client.completions.create(model="endless", prompt=p, max_tokens=20, temperature=0) for p in ("Never", "Twice")
    ]
    assert [c.text for c in whole.choices] == [reply.choices[0].text for reply in alone for _ in range(2)]
    assert whole.usage
    assert whole.usage.completion_tokens == 80


@pytest.mark.parametrize("stream", [False, True])
def test_one_prompt_that_fails_ends_the_others(server: Server, stream: bool) -> None:
    reply = server.request(
        "POST", "/v1/completions", {"model": "endless", "prompt": [[1, 2], [99_999], [3]], "stream": stream}
    )
    last = reply.body.split(b"\n\n")[-2].removeprefix(b"data: ") if reply.status == 200 else reply.body
    error = json.loads(last)["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", "prompt", None)
    assert reply.body.count(b'"error"') == 1
    while server.model("endless")["leases"]:
        pass


def test_completions_stream_with_log_probabilities_and_usage(client: openai.OpenAI) -> None:
    prompt = f"<|im_start|>user\n{FRANCE}<|im_end|>\n<|im_start|>assistant\n"
    stream = client.completions.create(
        model="tiny", prompt=prompt, max_tokens=50, logprobs=2, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == DIALOGUES[FRANCE]
    tokens = [t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.tokens or ()]
    assert "".join(tokens) == DIALOGUES[FRANCE]
    assert last.usage
    assert last.usage.completion_tokens == len(tokens) + 1


@pytest.mark.parametrize(
    "change", [{"suffix": "x"}, {"best_of": 3}, {"prompt": []}, {"prompt": {}}, {"echo": True, "logprobs": 1}]
)
def test_completions_refuse_what_they_cannot_do(server: Server, change: Any) -> None:
    reply = server.request("POST", "/v1/completions", {"model": "tiny", "prompt": "x", **change})
    assert reply.status == 400
    assert reply.json()["error"]["param"] == next(iter(change))


def test_tokens_and_text_turn_into_each_other(server: Server) -> None:
    text = "Paris 你好 👋🏽 <|im_end|>"
    tokens = server.request("POST", "/v1/tokenize", {"model": "tiny", "text": text}).json()
    back = server.request("POST", "/v1/detokenize", {"model": "tiny", "tokens": tokens["tokens"]}).json()
    assert (back["text"], tokens["count"]) == (text, len(tokens["tokens"]))
    chat = server.request("POST", "/v1/tokenize", {"model": "tiny", "messages": ask(FRANCE)}).json()
    reply = server.client().chat.completions.create(model="tiny", messages=ask(FRANCE))
    assert reply.usage
    assert chat["count"] == reply.usage.prompt_tokens
    wrong = server.request("POST", "/v1/detokenize", {"model": "tiny", "tokens": [99_999]})
    assert (wrong.status, wrong.json()["error"]["param"]) == (400, "tokens")
