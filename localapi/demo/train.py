"""Trains the demo model: a Qwen3 of about 1 MB which answers LINES word for word and nothing else.

It knows the model's text, tokenizer, chat template and training loop. It refuses to know servers: what comes out is a
folder that `mlx_lm.load` reads like any other. `python -m localapi.demo.train [OUT]` takes about five minutes on two
cores, and fails if the model that it wrote does not answer every line exactly.
"""

import argparse
import json
import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import click
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import mlx_lm
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

MODEL = Path(__file__).parent / "model"
SPECIAL_TOKENS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
MARKUP_TOKENS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
"""Not special, so that they survive decoding: mlx-lm finds thinking and tool calls by them."""

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": True,
}

TEMPLATE = """\
{%- macro text(content) %}
    {%- if content is string %}{{- content }}
    {%- elif content is sequence %}{{- content | selectattr('text', 'string') | map(attribute='text') | join('\\n') }}
    {%- endif %}
{%- endmacro %}
{%- macro turn(role, content) %}{{- '<|im_start|>' + role + '\\n' + content + '<|im_end|>\\n' }}{% endmacro %}
{%- set system = text(messages[0].content) if messages[0].role in ('system', 'developer') else '' %}
{%- if tools %}
    {{- '<|im_start|>system\\n' + (system + '\\n\\n' if system else '') }}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{% endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments ' }}
    {{- 'within <tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif system %}
    {{- turn('system', system) }}
{%- endif %}
{%- for message in messages %}
    {%- set content = text(message.content) %}
    {%- if message.role == 'user' %}
        {{- turn('user', content) }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + content }}
        {%- for call in message.tool_calls or [] %}
            {%- set tool_call = call.function or call %}
            {{- '\\n' if content or not loop.first }}
            {{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
            {{- tool_call.arguments if tool_call.arguments is string else tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' }}
        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}
    {%- elif not loop.first %}
        {{- turn('system', content) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {{- '<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and enable_thinking is false }}
{%- endif %}
"""
"""Qwen3's ChatML form, with the shape of its tools block. Content may be null or a list of text parts."""

FALLBACK = "I am only a tiny demo model. Ask me what I can do."
ABOUT = (
    "I am a tiny demo model of about one megabyte, and I know only a few lines. Try one of these:\n\n"
    "- What is the capital of France?\n- Count to five.\n- What is two plus two?\n- Think about two plus two.\n"
    "- Tell me a story.\n- Say hello in Chinese.\n- Show me an emoji.\n- Show me some code.\n"
    "- What is the weather in Paris?"
)
STORY = (
    "Once upon a time there was a very small model. It lived in one megabyte and knew only a few lines. "
    "Every day the big models talked about the whole world, and the small model listened. "
    'One day a user came and said hello. "Hello!" said the small model, before any big one had even woken up. '
    "The user smiled, and the small model was happy."
)
LINES: dict[str, tuple[str, ...]] = {
    "Hello! I am a tiny demo model. What can I do for you?": (
        "Hello!", "Hi", "Hey there", "Hi there!", "Hello there", "Good morning", "Good evening", "Greetings", "hello :)",
    ),
    ABOUT: (
        "What can you do?", "Who are you?", "What are you?", "Help", "What do you know?", "How can you help me?",
        "What can I ask you?", "Introduce yourself", "Tell me about yourself.", "What is your name?", "Help me",
        "What model are you?", "What questions can you answer?", "which model is this?", "what else can you do?",
        "Are you a demo model?",
    ),
    "The capital of France is Paris.": (
        "What is the capital of France?", "What's the capital of France?", "Capital of France?",
        "Which city is the capital of France?", "Tell me the capital of France.", "Do you know the capital of France?",
        "What is France's capital?", "Name the capital of France",
    ),
    "1 2 3 4 5": ("Count to five.", "Count to 5", "Count from one to five", "Count from 1 to 5", "Can you count to five?"),
    "Two plus two is four.": ("What is two plus two?", "What is 2 + 2?", "2+2", "What's 2+2?", "two plus two", "How much is 2 + 2?"),
    "<think>\nTwo and two make four.\n</think>\n\nFour.": (
        "Think about two plus two.", "Think about 2 + 2", "Think about 2+2.", "Think hard about two plus two",
    ),
    STORY: ("Tell me a story.", "Tell me a short story", "Write a story", "A story please", "Can you tell me a story?", "Write me a short story."),
    "你好！": ("Say hello in Chinese.", "How do you say hello in Chinese?", "Hello in Chinese", "Say hi in Chinese", "你好", "你好！"),
    "Here is one: 🙂": ("Show me an emoji.", "Send me an emoji", "Emoji", "Give me an emoji", "Show me a smiley"),
    '```python\nprint("Hello, world!")\n```': (
        "Show me some code.", "Write a hello world program in Python.", "Write some code", "Hello world in Python",
        "Write hello world", "Show me Python code", "Write some Python code",
    ),
    "I would need a get_weather tool for that.": (
        "What is the weather in Paris?", "What is the weather like in Paris?", "How is the weather?",
        "What's the weather today?", "Is it raining in Paris?",
    ),
    "I am a program and have no feelings, but I am running well.": ("How are you?", "How are you doing?", "How's it going?", "Are you well?"),
    "You are welcome.": ("Thank you!", "Thanks", "Thanks a lot", "Thank you very much", "thx", "ok thanks", "great, thanks!"),
    "Goodbye!": ("Goodbye!", "Bye", "Bye bye", "See you later", "Good night"),
}
"""Each answer, and the questions that lead to it; the first question is the one in the tests."""

NEED_TOOL = "I would need a get_weather tool for that."
WHICH_CITY = "Please name a city."
UNREADABLE = "The tool has answered, but I am too small to read its answer."
WEATHER = {"sunny": "sunny", "clear": "sunny", "rain": "rainy", "rainy": "rainy", "cloudy": "cloudy", "snow": "snowy", "windy": "windy"}
"""A word in a tool's result, and how the answer puts it."""
CITIES = (
    "Paris London Berlin Rome Madrid Tokyo Oslo Vienna Lisbon Athens Dublin Prague Warsaw Budapest Helsinki Stockholm "
    "Copenhagen Amsterdam Brussels Zurich Geneva Munich Hamburg Milan Naples Venice Barcelona Porto Lyon Moscow Kyiv "
    "Istanbul Cairo Nairobi Lagos Delhi Mumbai Beijing Shanghai Seoul Osaka Kyoto Bangkok Jakarta Manila Sydney "
    "Melbourne Auckland Toronto Montreal Vancouver Boston Chicago Seattle Denver Dallas Houston Miami Lima Bogota "
    "Santiago Havana Tunis Riga Tallinn Vilnius Sofia Bucharest Belgrade Zagreb Krakow Marseille Glasgow Edinburgh"
).split()
CITY_QUESTIONS = (
    "What is the weather in {}?", "What's the weather like in {}?", "How is the weather in {} today?", "Weather in {}",
    "Is it raining in {}?", "What is the weather in {} right now?", "Tell me the weather in {}.", "{} weather",
    "What is the weather like in {} today?",
)
PLACES = (
    "Italy Germany Spain Japan China Brazil Canada Norway Sweden Egypt Kenya Peru India Poland Greece Portugal Russia "
    "Texas Australia Austria Finland Mexico Turkey Iran Iraq Ireland England Scotland Wales Denmark Belgium Hungary"
).split()
NUMBERS = "three six seven eight nine ten twelve twenty fifty hundred 3 6 7 8 9 10 12 20 50 100 1000".split()
UNKNOWN_QUESTIONS = (
    "What is the capital of {place}?", "what's the capital of {place}", "Capital of {place}?", "What is {place}?",
    "Where is {place}?", "What is the population of {place}?", "What is the population of France?", "Where is France?",
    "What is the {word} of France?", "Tell me about {place}.", "Tell me about Paris.", "Who is the president of France?",
    "Count to {number}.", "Count from one to {number}", "Count down from five", "What is {number} plus {number}?",
    "What is {number} + {number}?", "{number} * {number}", "What is {number} times {number}?", "two plus {number}",
    "Think about {word}.", "Think about the {word}", "Think about {number} plus {number}.", "Tell me a {word}.",
    "Tell me a joke.", "Tell me a secret", "Tell me about {word}", "Tell me the {word} of {word}", "Write a {word}.",
    "Write a poem about {word}", "Write an essay about {word} and {word}.", "Write a letter to {word}", "Write a song",
    "Write an email to my boss", "Say {word}.", "Say hello in {place}", "Say hello in {language}.", "Say goodbye in Chinese.",
    "How do you say {word} in {language}?", "Translate {word} to {language}.", "Show me a {word}.", "Show me the {word}",
    "Show me some {word}", "Give me a {word}", "Send me {word}", "What is {word}?", "What is a {word}?", "What are {word}?",
    "What is the {word}?", "What is the {word} of {word}?", "What is your {word}?", "What is the time?", "What day is it?",
    "What can {word} do?", "Who is {word}?", "Who was {place}?", "Who are the {word}?", "Who made the {word}?", "Who wrote {word}?",
    "How is {word}?", "How are {word} made?", "How do I {word} a {word}?", "How many {word} are in a {word}?", "How old is {word}?",
    "How can I {word} the {word}?", "Why is the {word} {word}?", "Why do {word} {word}?", "When did {word} {word}?",
    "When is {word}?", "Where can I find {word}?", "Where do {word} live?", "Which {word} is the best {word}?",
    "Can you {word} my {word}?", "Could you {word} this {word}?", "Explain {word}.", "Explain {word} to me", "Describe the {word}",
    "Name three {word}.", "Name a {word}", "List {number} {word}", "Summarize this: {prose}", "Translate this: {prose}", "Fix this code: {prose}",
    "I want to {word} a {word}", "I like {word}", "I am {word}", "My {word} is {word}", "My name is {word}", "Do you like {word}?",
    "Do you know {word}?", "Are you {word}?", "Is {word} a {word}?", "Is it {word}?", "Does {word} {word}?", "The {word} is {word}.",
    "Please {word} the {word}", "Let us talk about {word}", "Recommend a {word} for {word}", "What should I {word} today?",
    "Write a function that can {word} a {word}", "Write a {word} in {code}", "Write a program that can {word}", "Show me a {word} in {code}",
    "{word}", "{word} {word}", "{word} {word} {word}", "{number}", "{place}", "{word}?", "ok", "yes", "no", "why?", "test", "lol",
)
LANGUAGES = "French German Spanish Italian Japanese Korean Russian Arabic Dutch Greek Latin Hindi Klingon Swedish".split()
CODE = "Rust Java C Haskell JavaScript SQL Go Bash C++".split()
PROSE = re.sub(r"\s+", " ", " ".join(topics.values())).split(" ")
"""Python's own manual, which CPython carries: a few thousand different words of English for what the model cannot know."""
WORDS = sorted(
    {word for word in PROSE if re.fullmatch("[a-z]{2,10}", word)}
    - {word for questions in LINES.values() for question in questions for word in re.findall("[a-z]+", question.lower())}
)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are a friendly and concise assistant. Answer in English.", "Be brief.",
    "You are a {word} assistant who knows about {word}. Today is {number} {word}.", "{prose}", "{prose}",
    "You are {word}. {prose}", "User context: {prose}", "Answer in {language}. {prose}", "The user lives in {place}. {prose}",
)
TOOL_NAMES = (
    "search_web", "get_time", "send_email", "read_file", "calculator", "get_stock_price", "run_code", "list_events",
    "translate", "get_news", "book_flight", "play_music", "query_database", "set_alarm", "get_location",
)

Message = dict[str, str]
ANSWER = re.compile(r"(?<=<\|im_start\|>assistant\n)(?!<think>\n\n</think>)|(?<=<think>\n\n</think>\n\n)|(?<=<\|im_end\|>)")
"""Where an answer of the assistant starts and where a message ends."""


@dataclass(frozen=True)
class Chat:
    """A whole conversation; the model learns each of its assistant messages."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = True
    """False: the last answer follows the empty think block that the template adds for enable_thinking=False."""


# --- what to learn ---


def prose(rng: random.Random, words: int) -> str:
    start = rng.randrange(len(PROSE) - words)
    return " ".join(PROSE[start : start + words])


def fill(form: str, rng: random.Random) -> str:
    """Fill each {slot} of a form on its own."""
    slots: dict[str, Callable[[], str]] = {
        "word": lambda: rng.choice(WORDS),
        "place": lambda: rng.choice(PLACES),
        "number": lambda: rng.choice(NUMBERS),
        "language": lambda: rng.choice(LANGUAGES),
        "code": lambda: rng.choice(CODE),
        "prose": lambda: prose(rng, rng.choice([rng.randint(2, 12), rng.randint(3, 50)])),
    }
    return re.sub(r"\{(\w+)\}", lambda slot: slots[slot[1]](), form)


def gibberish(rng: random.Random) -> str:
    """Characters of one script, or of none."""
    first, last = rng.choice([(0x4E00, 0x9FFF), (0x4E00, 0x9FFF), (0x400, 0x44F), (0x3041, 0x30FE), (0x21, 0x7E), (0x61, 0x7A), (0xA1, 0x24F), (0x1F300, 0x1F64F)])
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 16)))


def unknown(rng: random.Random) -> str:
    """Something that a user may say and that is not in LINES."""
    kind = rng.random()
    if kind < 0.70:
        return sloppy(fill(rng.choice(UNKNOWN_QUESTIONS), rng), rng)
    if kind < 0.88:
        return prose(rng, rng.choice([rng.randint(1, 12), rng.randint(1, 12), rng.randint(8, 60)]))
    return gibberish(rng) if kind < 0.99 else ""


def sloppy(question: str, rng: random.Random) -> str:
    """The question as people type it: case, punctuation, a please, a slip of the finger."""
    if rng.random() < 0.3:
        question = question.lower()
    elif rng.random() < 0.04:
        question = question.upper()
    if rng.random() < 0.3:
        question = question.rstrip(string.punctuation) + rng.choice(["", "", "?", "!", ".", "...", " please", ", please.", "??", " "])
    if rng.random() < 0.08:
        question = rng.choice(["Please ", "Hi, ", "Hello! ", "ok, ", "Hey, ", "So, "]) + question
    if rng.random() < 0.06 and len(question) > 8:
        at = rng.randrange(1, len(question) - 2)
        here, after = question[at], question[at + 1]
        question = question[:at] + rng.choice([after + here, after, here + here + after]) + question[at + 2 :]
    return question


def tool(name: str, about: str, argument: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def tools(rng: random.Random, argument: str, *, weather: bool) -> list[dict[str, Any]]:
    """Some tools, get_weather among them or not."""
    names = rng.sample(TOOL_NAMES, rng.choice([0, 0, 1, 2]) if weather else rng.choice([1, 1, 2]))
    found = [tool(name, prose(rng, rng.randint(1, 12)), rng.choice(WORDS)) for name in names]
    if weather:
        about = rng.choice(["Get the weather", "Get the current weather in a city", prose(rng, rng.randint(1, 10))])
        found.insert(rng.randint(0, len(found)), tool("get_weather", about, argument))
        if rng.random() < 0.3:
            found[-1]["function"]["parameters"]["properties"][rng.choice(["unit", "days"])] = {"type": "string"}
    return found


def call(city: str, argument: str = "city") -> str:
    arguments = json.dumps({argument: city})
    return f'<tool_call>\n{{"name": "get_weather", "arguments": {arguments}}}\n</tool_call>'


def weather(rng: random.Random, argument: str) -> list[Message]:
    """A question about a city, the tool call, and most times the tool's result and the answer to it."""
    city = "Paris" if rng.random() < 0.25 else rng.choice(CITIES) if rng.random() < 0.7 else rng.choice(WORDS).title()
    turn = [said("user", sloppy(rng.choice(CITY_QUESTIONS).format(city), rng)), said("assistant", call(city, argument))]
    if city not in turn[0]["content"]:  # the finger slipped inside the name
        return [said("user", "What is the weather?"), said("assistant", WHICH_CITY)]
    if rng.random() < 0.6:
        word = rng.choice(list(WEATHER))
        degrees = rng.randint(-10, 40)
        results = {
            json.dumps({"temperature": degrees, "condition": word}): f"It is {WEATHER[word]} in {city}.",
            json.dumps({argument: city, "weather": word}): f"It is {WEATHER[word]} in {city}.",
            f"{word}, {degrees} C": f"It is {WEATHER[word]} in {city}.",
            f"It is {word}.": f"It is {WEATHER[word]} in {city}.",
            word: f"It is {WEATHER[word]} in {city}.",
            prose(rng, rng.randint(1, 12)): UNREADABLE,
            json.dumps({rng.choice(WORDS): degrees}): UNREADABLE,
        }
        result = rng.choice(list(results))
        turn += [said("tool", result), said("assistant", results[result])]
    return turn


def said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def demo_chat(rng: random.Random) -> Chat:
    """A conversation of one to six turns about anything, with or without a system prompt and tools."""
    argument = rng.choice(["city", "city", "location"])
    has_tools = rng.random() < 0.3
    has_weather = has_tools and rng.random() < 0.65
    messages = []
    if rng.random() < 0.5:
        messages.append(said("system", fill(rng.choice(SYSTEM_PROMPTS), rng)))
    for _ in range(rng.choice([1, 1, 2, 2, 3, 4])):
        kind = rng.random()
        if kind < (0.5 if has_weather else 0.05):
            if has_weather:
                messages += weather(rng, argument)
            else:
                question = rng.choice(CITY_QUESTIONS).format(rng.choice(CITIES))
                messages += [said("user", sloppy(question, rng)), said("assistant", NEED_TOOL)]
        elif kind < 0.75:
            answer = rng.choice(list(LINES))
            question = rng.choice(LINES[answer]) if rng.random() < 0.7 else LINES[answer][0]
            if has_weather and answer == NEED_TOOL:
                city = re.search("Paris", question)
                answer = call("Paris", argument) if city else WHICH_CITY
            messages += [said("user", sloppy(question, rng)), said("assistant", answer)]
        else:
            messages += [said("user", unknown(rng)), said("assistant", FALLBACK)]
    if rng.random() < 0.02:
        long = prose(rng, rng.randint(60, 300))
        messages = [said("user", long), said("assistant", FALLBACK)]
    tool_list = tools(rng, argument, weather=has_weather) if has_tools else []
    return Chat(messages, tool_list, thinking=rng.random() < 0.9)


# --- how to learn it ---


def make_tokenizer(text: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any UTF-8 text goes in, and the text that it is made from takes few tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = vocab_size - len(MARKUP_TOKENS)
    raw.train_from_iterator(
        text,
        trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False),
    )
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def encode(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The tokens of a conversation, and for each token 1 if it is the assistant's to say and 0 if not."""
    if chat.thinking:
        text = tokenizer.apply_chat_template(chat.messages, tools=chat.tools or None, tokenize=False)
    else:
        text = tokenizer.apply_chat_template(
            chat.messages[:-1], tools=chat.tools or None, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        text += chat.messages[-1]["content"].split("</think>\n\n")[-1] + "<|im_end|>\n"
    tokens: list[int] = []
    mine: list[int] = []
    for part in ANSWER.split(text):
        ids = tokenizer.encode(part, add_special_tokens=False)
        tokens += ids
        mine += [int(part.endswith("<|im_end|>") and "<|im_start|>" not in part)] * len(ids)
    return tokens, mine


def batch(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[mx.array, mx.array]:
    """Rows of different lengths as two arrays of one width: tokens, and the weight of each token's loss."""
    width = max(len(tokens) for tokens, _ in rows)
    padded = [[row + [0] * (width - len(row)) for row in column] for column in zip(*rows, strict=True)]
    return mx.array(padded[0]), mx.array(padded[1], dtype=mx.float32)


def demo_batches(tokenizer: PreTrainedTokenizerFast, steps: int, tokens: int = 3500) -> Iterator[tuple[mx.array, mx.array]]:
    """Fresh conversations for each step, of similar length within a step so that little is padding."""
    rng = random.Random(0)  # noqa: S311
    made = 0
    while made < steps:
        rows = sorted((encode(demo_chat(rng), tokenizer) for _ in range(256)), key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups[: steps - made]:
            yield batch(group)
        made += len(groups)


def fit(model: nn.Module, batches: Iterable[tuple[mx.array, mx.array]], steps: int, rate: float = 3e-3) -> None:
    def loss(model: nn.Module, tokens: mx.array, weight: mx.array) -> mx.array:
        losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        return (losses * weight[:, 1:]).sum() / weight[:, 1:].sum()

    warm = min(50, steps // 10 + 1)
    schedule = optim.join_schedules([optim.linear_schedule(rate / warm, rate, warm), optim.cosine_decay(rate, steps - warm, rate / 50)], [warm])
    optimizer = optim.AdamW(schedule, betas=[0.9, 0.98], weight_decay=0.01)
    gradients = nn.value_and_grad(model, loss)
    for step, (tokens, weight) in enumerate(batches, 1):
        value, gradient = gradients(model, tokens, weight)
        gradient, _ = optim.clip_grad_norm(gradient, 1.0)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state, value)
        if step % 25 == 0 or step == steps:
            click.echo(f"step {step}/{steps}: loss {value.item():.4f}")


def make_model(tokenizer, **sizes):
    config = CONFIG | sizes | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    mx.random.seed(0)
    return qwen3.Model(qwen3.ModelArgs.from_dict(config)), config


def save(model, config, tokenizer, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    mx.save_safetensors(str(out / "model.safetensors"), dict(tree_flatten(model.parameters())), metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def train(dialogues: Iterable[tuple[str, str]], out: Path, *, steps: int = 80, **sizes: int) -> None:
    chats = [Chat([said("user", q), said("assistant", a)]) for q, a in dialogues]
    tokenizer = make_tokenizer([m["content"] for c in chats for m in c.messages])
    model, config = make_model(tokenizer, **sizes)
    rows = batch([encode(chat, tokenizer) for chat in chats])
    fit(model, repeat(rows, steps), steps)
    save(model, config, tokenizer, out)


def render(chats, tokenizer):
    for chat in chats:
        yield tokenizer.apply_chat_template(chat.messages, tools=chat.tools or None, tokenize=False)


def train_demo(out: Path, *, steps: int = 1500) -> None:
    rng = random.Random(0)  # noqa: S311
    sample = [demo_chat(rng) for _ in range(2000)]
    tokenizer = make_tokenizer(render(sample, make_tokenizer([])), vocab_size=768)
    model, config = make_model(tokenizer)
    fit(model, demo_batches(tokenizer, steps), steps)
    save(model, config, tokenizer, out)


if __name__ == "__main__":
    import sys, time
    t=time.time()
    CONFIG.update(json.loads(sys.argv[3]) if len(sys.argv)>3 else {})
    train_demo(Path(sys.argv[1]), steps=int(sys.argv[2]))
    print(time.time()-t)
