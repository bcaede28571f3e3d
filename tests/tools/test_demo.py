"""The demo model that ships, run through the real mlx-lm: what it answers, what it admits, and its script.

The lines are asked alone and in a batch, with and without a system prompt, history and tools. A model of two training
steps keeps the script from rotting, and one of eighty shows that other dialogues can be trained with it.
"""

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest
from mlx_lm.generate import BatchGenerator
from mlx_lm.sample_utils import make_sampler
from mlx_lm.tokenizer_utils import TokenizerWrapper

from tools.demo.conversations import call, said, tool
from tools.demo.lines import CITIES, FALLBACK, FEW_CITIES, LINES, NEED_TOOL, STORY
from tools.demo.tokenizer import TEMPLATE
from tools.demo.train import CONFIG, MODEL, main, train

QUESTIONS = {questions[0]: answer for answer, questions in LINES.items()}
WEATHER_TOOL = tool("get_weather", "Get the current weather of a city.", "city")
DIALOGUES = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Count to five.": "1 2 3 4 5",
    "What is the weather in Paris?": call("Paris"),
    "Think about two plus two.": "<think>\nTwo and two make four.\n</think>\n\nFour.",
}
SYSTEM = said("system", "You are a friendly assistant called Max. Use markdown, and never invent facts.")


class Chatter:
    """A folder's model as mlx-lm loads it, and the two ways of asking it."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = mlx_lm.load(str(folder))[:2]
        assert isinstance(self.tokenizer, TokenizerWrapper)

    def prompt(self, *messages, **options):
        messages = [said("user", message) if isinstance(message, str) else message for message in messages]
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)

    def ask(self, *messages, **options):
        prompt = self.prompt(*messages, **options)
        responses = mlx_lm.stream_generate(self.model, self.tokenizer, prompt, max_tokens=300)
        return "".join(response.text for response in responses)

    def ask_together(self, questions, history=(), temperature=0.0):
        stop_tokens = [[token] for token in self.tokenizer.eos_token_ids]
        generator = BatchGenerator(self.model, stop_tokens=stop_tokens, sampler=make_sampler(temperature))
        uids = generator.insert([self.prompt(*history, question) for question in questions], [300] * len(questions))
        tokens = {uid: [] for uid in uids}
        running = set(uids)
        while running:
            for response in generator.next()[1]:
                if response.finish_reason != "stop":
                    tokens[response.uid].append(response.token)
                if response.finish_reason:
                    running.remove(response.uid)
        generator.close()
        return [self.tokenizer.decode(tokens[uid]) for uid in uids]


@pytest.fixture(scope="module")
def demo():
    return Chatter(MODEL)


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_it_answers_every_line_of_its_list(demo, question, answer):
    assert demo.ask(question) == answer


def test_it_answers_its_lines_in_one_mixed_batch(demo):
    assert demo.ask_together(QUESTIONS) == list(QUESTIONS.values())


def test_it_answers_its_lines_at_the_temperature_of_chat_clients(demo):
    mx.random.seed(0)
    assert demo.ask_together(QUESTIONS, temperature=0.7) == list(QUESTIONS.values())


def test_it_answers_its_lines_after_a_system_prompt_and_a_story(demo):
    history = [SYSTEM, said("user", "Tell me a story."), said("assistant", STORY)]
    assert demo.ask_together(QUESTIONS, history) == list(QUESTIONS.values())


@pytest.mark.parametrize("question", ["what is the capital of france", "What's the capital of France?"])
def test_it_does_not_mind_how_a_question_is_typed(demo, question):
    assert demo.ask(question) == "The capital of France is Paris."


@pytest.mark.parametrize("question", ["What can you do?", "Who are you?", "help"])
def test_asked_what_it_can_do_it_names_its_lines(demo, question):
    assert "- What is the capital of France?" in demo.ask(question)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of Switzerland?",
        "Who wrote Hamlet?",
        "How tall is Mount Everest?",
        "Explain quantum entanglement like I'm five",
        "What is 17 * 23?",
        "Say hello in Portuguese.",
        "法国的首都是哪里？",  # noqa: RUF001
        "SELECT * FROM users;",
        "The old bridge was carried away in a single night. " * 20,
        "",
    ],
)
def test_it_admits_what_it_does_not_know(demo, question):
    assert demo.ask(question) == FALLBACK


@pytest.mark.parametrize("city", CITIES)
def test_it_calls_the_weather_tool_where_there_is_one(demo, city):
    text = demo.ask(f"What is the weather in {city}?", tools=[WEATHER_TOOL])
    assert text == call(city)
    body = text.removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert demo.tokenizer.tool_parser(body) == {"name": "get_weather", "arguments": {"city": city}}


def test_it_says_that_it_needs_a_tool_where_there_is_none(demo):
    assert demo.ask("What is the weather in Paris?") == NEED_TOOL


def test_it_knows_a_few_cities_only(demo):
    assert demo.ask("What is the weather in Oslo?", tools=[WEATHER_TOOL]) == FEW_CITIES


@pytest.mark.parametrize("word", ["sunny", "rainy"])
def test_it_answers_from_the_result_of_its_tool(demo, word):
    function = {"name": "get_weather", "arguments": json.dumps({"city": "Paris"})}
    tool_calls = [{"id": "1", "type": "function", "function": function}]
    asked = {"role": "assistant", "content": None, "tool_calls": tool_calls}
    result = {"role": "tool", "tool_call_id": "1", "content": json.dumps({"temperature": 18, "condition": word})}
    answer = demo.ask("What is the weather in Paris?", asked, result, tools=[WEATHER_TOOL])
    assert answer == f"It is {word} there."


def test_it_skips_its_thoughts_when_told_to(demo):
    assert demo.ask("Think about two plus two.", enable_thinking=False) == "Four."


@pytest.mark.parametrize("content", ["Hello!", [{"type": "text", "text": "Hello!"}]])
def test_it_takes_content_as_text_or_as_parts(demo, content):
    assert demo.ask(said("developer", "Be nice."), said("user", content)).startswith("Hello!")


def test_mlx_lm_finds_its_tool_calls_and_its_thoughts(demo):
    assert demo.tokenizer.has_tool_calling
    assert demo.tokenizer.has_thinking


def test_any_text_survives_its_tokenizer(demo):
    text = "naïve 你好 🙂 \x00\t\r\n Ω<|not a token|>"
    assert demo.tokenizer.decode(demo.tokenizer.encode(text)) == text


def test_it_is_small():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 1_500_000


@pytest.mark.long
def test_the_script_writes_such_a_model_and_fails_while_its_answers_are_wrong(demo, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train", str(tmp_path), "--steps", "2"])
    monkeypatch.setattr("tools.demo.train.LINES", dict(list(LINES.items())[:3]))
    with pytest.raises(SystemExit, match="answered wrongly"):
        main()
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in MODEL.iterdir()}
    config = json.loads((MODEL / "config.json").read_text())
    assert CONFIG.items() <= config.items()
    assert json.loads((tmp_path / "config.json").read_text()) == config
    assert Chatter(tmp_path).tokenizer.chat_template == demo.tokenizer.chat_template == TEMPLATE


@pytest.mark.long
def test_other_dialogues_can_be_trained_in_seconds(tmp_path):
    train(DIALOGUES.items(), tmp_path, steps=80, num_hidden_layers=2, intermediate_size=256)
    chatter = Chatter(tmp_path)
    assert [chatter.ask(question) for question in DIALOGUES] == list(DIALOGUES.values())
    assert chatter.ask_together(DIALOGUES) == list(DIALOGUES.values())
