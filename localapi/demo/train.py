"""Trains the demo model: a Qwen3 of about 1 MB which answers LINES word for word and nothing else.

It knows the model's text, tokenizer, chat template and training loop. It refuses to know servers: what comes out is a
folder that `mlx_lm.load` reads like any other. `python -m localapi.demo.train [OUT]` fails if the model that it wrote
does not answer every line exactly. On Linux, MLX's wheel brings a slow BLAS: with OpenBLAS preloaded
(LD_PRELOAD=libopenblas.so.0) the training takes a quarter of an hour on two idle cores, without it over an hour.
"""

import argparse
import json
import random
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import click
import mlx.core as mx
import mlx.optimizers as optim
import mlx_lm
from mlx import nn
from mlx.nn.layers.base import Module
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

STEPS = 1400
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


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text that holds a bar between each two."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


def words(text: str) -> list[str]:
    return text.split()


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
NEED_TOOL = "I would need a get_weather tool for that."
WHICH_CITY = "Please name a city."
UNREADABLE = "The tool has answered, but I am too small to read its answer."
NI_HAO = "你好！"  # noqa: RUF001
LINES: dict[str, tuple[str, ...]] = {
    "Hello! I am a tiny demo model. What can I do for you?": phrases("""
        Hello! | Hi | Hey there | Hi there! | Hello there | Good morning | Good evening | Greetings | hello :) |
        Good afternoon | yo | helo | hello friend | hi, nice to meet you | hey
    """),
    ABOUT: phrases("""
        What can you do? | Who are you? | What are you? | Help | help! | I need help | What do you know? | How
        can you help me? | What can I ask you? | Introduce yourself | Tell me about yourself. | What is your
        name? | Help me | What model are you? | What questions can you answer? | which model is this? | what
        else can you do? | Are you a demo model? | what can u do | who r u | What do you do? | What is this? |
        Are you ChatGPT? | Tell me what you can do. | Are you a robot? | What are your capabilities?
    """),
    "The capital of France is Paris.": phrases("""
        What is the capital of France? | What's the capital of France? | Capital of France? | Which city is the
        capital of France? | Tell me the capital of France. | Do you know the capital of France? | What is
        France's capital? | Name the capital of France
    """),
    "1 2 3 4 5": phrases("""
        Count to five. | Count to 5 | Count from one to five | Count from 1 to 5 | Can you count to five?
    """),
    "Two plus two is four.": phrases("""
        What is two plus two? | What is 2 + 2? | 2+2 | What's 2+2? | two plus two | How much is 2 + 2?
    """),
    "<think>\nTwo and two make four.\n</think>\n\nFour.": phrases("""
        Think about two plus two. | Think about 2 + 2 | Think about 2+2. | Think hard about two plus two
    """),
    STORY: phrases("""
        Tell me a story. | Tell me a short story | Write a story | A story please | Can you tell me a story? | Write
        me a short story. | story | story time | I want to hear a story | tell me another story
    """),
    NI_HAO: phrases("""
        Say hello in Chinese. | How do you say hello in Chinese? | Hello in Chinese | Say hi in Chinese | 你好 |
        你好！
    """),  # noqa: RUF001
    "Here is one: 🙂": phrases("""
        Show me an emoji. | Send me an emoji | Emoji | Give me an emoji | Show me a smiley
    """),
    '```python\nprint("Hello, world!")\n```': phrases("""
        Show me some code. | Write a hello world program in Python. | Write some code | Hello world in Python |
        Write hello world | Show me Python code | Write some Python code
    """),
    NEED_TOOL: phrases("""
        What is the weather in Paris? | What is the weather like in Paris? | How is the weather? | What's the
        weather today? | Is it raining in Paris?
    """),
    "I am a program and have no feelings, but I am running well.": phrases("""
        How are you? | How are you doing? | How's it going? | Are you well? | what's up? | how are u | sup | How do
        you feel?
    """),
    "You are welcome.": phrases("""
        Thank you! | Thanks | Thanks a lot | Thank you very much | thx | ok thanks | great, thanks! | thank u |
        thanks for your help | ty
    """),
    "Goodbye!": phrases("""
        Goodbye! | Bye | Bye bye | See you later | Good night | cya | see you | good bye
    """),
}
"""Each answer, and the questions that lead to it; its first question is the one that is checked."""

WEATHER = {"sunny": ("sunny", "clear"), "cloudy": ("cloudy",), "rainy": ("rainy", "rain"), "snowy": ("snowy", "snow")}
"""How an answer puts the words of a tool's result."""
CITIES = words("Paris London Berlin Tokyo")
FEW_CITIES = "I know only a few cities: Paris, London, Berlin and Tokyo."
OTHER_CITIES = phrases("""
    Rome | Madrid | New York | Oslo | Vienna | Lisbon | Athens | Dublin | Prague | Warsaw | Budapest | Helsinki
    | Stockholm | Amsterdam | Brussels | Zurich | Geneva | Munich | Hamburg | Milan | Naples | Venice |
    Barcelona | Porto | Lyon | Moscow | Kyiv | Istanbul | Cairo | Nairobi | Lagos | Delhi | Mumbai | Beijing |
    Shanghai | Seoul | Osaka | Bangkok | Jakarta | Manila | Sydney | Melbourne | Toronto | Montreal | Boston |
    Chicago | Seattle | Denver | Dallas | Houston | Miami | Lima | Bogota | Havana | Sofia | Belgrade | Krakow |
    Marseille | Glasgow | Edinburgh | New Orleans | San Francisco | Los Angeles | São Paulo | 北京 | Hong Kong |
    Rio
""")
CITY_QUESTIONS = phrases("""
    What is the weather in {}? | What's the weather like in {}? | How is the weather in {} today? | Weather in
    {} | Is it raining in {}? | What is the weather in {} right now? | Tell me the weather in {}. | {} weather |
    What is the weather like in {} today?
""")
PLACES = words("""
    Italy Germany Spain Japan China Brazil Canada Norway Sweden Egypt Kenya Peru India Poland Greece Portugal Russia
    Texas Australia Austria Finland Mexico Turkey Iran Iraq Ireland England Scotland Wales Denmark Belgium Hungary
""")
NUMBERS = words("""
    three six seven eight nine ten twelve twenty fifty hundred 3 6 7 8 9 10 12 20 50 100 1000 42 99 23 4 15
    thirty forty sixty
""")
UNKNOWN_QUESTIONS = phrases("""
    What is the capital of {place}? | what's the capital of {place} | Capital of {place}? | What is {place}? | Where
    is {place}? | What is the population of {place}? | What is the population of France? | Where is France? | What
    is the {word} of France? | Tell me about {place}. | Tell me about Paris. | Who is the president of France? |
    Count to {number}. | Count from one to {number} | Count down from five | What is {number} plus {number}? | What
    is {number} + {number}? | {number} * {number} | What is {number} times {number}? | two plus {number} | Think
    about {word}. | Think about the {word} | Think about {number} plus {number}. | Tell me a {word}. | Tell me a
    joke. | Tell me a secret | Tell me about {word} | Tell me the {word} of {word} | Write a {word}. | Write a poem
    about {word} | Write an essay about {word} and {word}. | Write a letter to {word} | Write a song | Write an
    email to my boss | Say {word}. | Say hello in {place} | Say hello in {language}. | Say goodbye in Chinese. | How
    do you say {word} in {language}? | Translate {word} to {language}. | Show me a {word}. | Show me the {word} |
    Show me some {word} | Give me a {word} | Send me {word} | What is {word}? | What is a {word}? | What are {word}?
    | What is the {word}? | What is the {word} of {word}? | What is your {word}? | What is the time? | What day is
    it? | What can {word} do? | Who is {word}? | Who was {place}? | Who are the {word}? | Who made the {word}? | Who
    wrote {word}? | How is {word}? | How are {word} made? | How do I {word} a {word}? | How many {word} are in a
    {word}? | How old is {word}? | How can I {word} the {word}? | Why is the {word} {word}? | Why do {word} {word}?
    | When did {word} {word}? | When is {word}? | Where can I find {word}? | Where do {word} live? | Which {word} is
    the best {word}? | Can you {word} my {word}? | Could you {word} this {word}? | Explain {word}. | Explain {word}
    to me | Describe the {word} | Name three {word}. | Name a {word} | List {number} {word} | Summarize this:
    {prose} | Translate this: {prose} | Fix this code: {prose} | I want to {word} a {word} | I like {word} | I am
    {word} | My {word} is {word} | My name is {word} | Do you like {word}? | Do you know {word}? | Are you {word}? |
    Is {word} a {word}? | Is it {word}? | Does {word} {word}? | The {word} is {word}. | Please {word} the {word} |
    Let us talk about {word} | Recommend a {word} for {word} | What should I {word} today? | Write a function that
    can {word} a {word} | Write a {word} in {code} | Write a program that can {word} | Show me a {word} in {code} |
    {word} | {word} {word} | {word} {word} {word} | {number} | I feel {word} today | You are {word}. | Is it {word}
    in {place}? | Write a {word} about {word} | Show me a picture of a {word} | more | continue | go on | What is
    this? | What year is it? | Give me a recipe for {word} | Who won the {word} in {number}? |
    What is your favourite {word}? | Does {place} have {word}? | How far is {place} from {place}? | How big is
    {place}? | {place} {word} | Count {word}. | Count the {word} | Think. | Say {word} in Chinese | the {word} of
    {place} | {place} | {word}? | ok | yes | no | why? | test | lol | What is two plus {number}? | What's two plus
    {number}? | Think about two plus {number}. | Think about 2 + {number} | What is 2 + {number}? | What is {number}
    + 2? | {number} plus two | 2 + {number} | What is two times {number}? | Who am I? | Are you {word}? | You are
    wrong | Say {word} {word} | How is {place}? | What is up with {word}?
""")
LANGUAGES = words("""
    French German Spanish Italian Japanese Korean Russian Arabic Dutch Greek Latin Hindi Klingon Swedish
""")
CODE = words("""
    Rust Java C Haskell JavaScript SQL Go Bash C++
""")
PROSE = re.sub(r"\s+", " ", " ".join(topics.values())).split(" ")
"""Python's own manual, which CPython carries: English about things that the model cannot know."""
EVERYDAY = words("""
    cat dog horse bird fish tree flower river mountain ocean sun moon star winter spring summer rain bread cheese
    apple banana pancakes soup pizza coffee tea dinner lunch recipe kitchen house garden door window car train
    bicycle plane boat road city village school teacher homework doctor nurse king queen president actor singer
    guitar piano music movie song dance football chess game winner war peace history art science physics math
    chemistry biology planet universe life death love money job boss friend mother father sister brother baby
    birthday holiday party gift dress shoes phone computer website email password server database dragon wizard
    knight castle poem haiku limerick joke happy sad angry tired hungry beautiful blue red green old young cheap
    fast cold hot buy sell cook bake paint draw fix build learn teach travel sleep eat drink run swim sing win lose
    marry cry laugh forget remember elephants
""")
KNOWN_WORDS = set(re.findall("[a-z]+", str(list(LINES.values())).lower()))
WORDS = EVERYDAY * 8 + sorted({word for word in PROSE if re.fullmatch("[a-z]{2,10}", word)} - KNOWN_WORDS)
SYSTEM_PROMPTS = phrases("""
    You are a helpful assistant. | You are a friendly and concise assistant. Answer in English. | Be brief. |
    You are a {word} assistant who knows about {word}. Today is {number} {word}. | {prose} | {prose} | You are
    {word}. {prose} | User context: {prose} | Answer in {language}. {prose} | The user lives in {place}. {prose}
""")
TOOL_NAMES = words("""
    search_web get_time send_email read_file calculator get_stock_price run_code list_events translate get_news
    book_flight play_music query_database set_alarm get_location
""")

Message = dict[str, str]
Row = tuple[list[int], list[int]]
Batch = tuple[mx.array, mx.array]
ANSWER = re.compile(
    r"(?<=<\|im_start\|>assistant\n)(?!<think>\n\n</think>)|(?<=<think>\n\n</think>\n\n)|(?<=<\|im_end\|>)"
)
"""Where an answer of the assistant starts and where a message ends."""


@dataclass(frozen=True)
class Chat:
    """A whole conversation; the model learns each of its assistant messages."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = True
    """False: the last answer follows the empty think block that the template adds for enable_thinking=False."""


# --- what to learn ---


def prose(rng: random.Random, length: int) -> str:
    start = rng.randrange(len(PROSE) - length)
    return " ".join(PROSE[start : start + length])


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
    han, kana, cyrillic, ascii_, latin, emoji = "一鿿", "ぁヾ", "Ѐя", "!~", "¡ɏ", "🌀🙏"
    first, last = map(ord, rng.choice([han, han, kana, cyrillic, ascii_, "az", latin, emoji]))
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.choice([rng.randint(1, 12), rng.randint(1, 60)])))


def chance(probability: float, rng: random.Random) -> bool:
    return rng.random() < probability


def unknown(rng: random.Random) -> str:
    """Something that a user may say and that is not in LINES."""
    if chance(0.7, rng):
        return sloppy(fill(rng.choice(UNKNOWN_QUESTIONS), rng), rng)
    if chance(0.6, rng):
        return prose(rng, rng.choice([rng.randint(1, 12), rng.randint(1, 12), rng.randint(8, 60)]))
    return "" if chance(0.05, rng) else gibberish(rng)


def sloppy(question: str, rng: random.Random) -> str:
    """The question as people type it: case, punctuation, a please, a slip of the finger."""
    if chance(0.3, rng):
        question = question.lower()
    elif chance(0.08, rng):
        question = question.upper()
    if chance(0.3, rng):
        ends = ["", "", "?", "!", ".", "...", " please", ", please.", "??", " "]
        question = question.rstrip(string.punctuation) + rng.choice(ends)
    if chance(0.12, rng):
        question = rng.choice(["Please ", "Hi, ", "Can you tell me: ", "Hello! ", "ok, ", "Hey, ", "So, "]) + question
    return slip(question, rng) if chance(0.06, rng) else question


def slip(question: str, rng: random.Random) -> str:
    """Two letters swapped, one lost or one doubled."""
    if len(question) <= len("count to"):
        return question
    at = rng.randrange(1, len(question) - 1)
    here, after = question[at], question[at + 1]
    return question[:at] + rng.choice([after + here, after, here + here + after]) + question[at + 2 :]


def tool(name: str, about: str, argument: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def some_tools(rng: random.Random, argument: str, *, weather: bool) -> list[dict[str, Any]]:
    """Some tools, get_weather among them or not."""
    names = rng.sample(TOOL_NAMES, rng.choice([0, 0, 1, 2]) if weather else rng.choice([1, 1, 2]))
    found = [tool(name, prose(rng, rng.randint(1, 12)), rng.choice(WORDS)) for name in names]
    if weather:
        about = rng.choice(["Get the weather", "Get the current weather in a city", prose(rng, rng.randint(1, 10))])
        found.insert(rng.randint(0, len(found)), tool("get_weather", about, argument))
        if chance(0.3, rng):
            found[-1]["function"]["parameters"]["properties"][rng.choice(["unit", "days"])] = {"type": "string"}
    return found


def call(city: str, argument: str = "city") -> str:
    arguments = json.dumps({argument: city})
    return f'<tool_call>\n{{"name": "get_weather", "arguments": {arguments}}}\n</tool_call>'


def weather(rng: random.Random, argument: str) -> list[Message]:
    """A question about a city, the tool call, and most times the tool's result and the answer to it."""
    other = rng.choice([rng.choice(OTHER_CITIES), rng.choice(WORDS).title()])
    city = rng.choice([CITIES[0], rng.choice(CITIES), other])
    question = sloppy(rng.choice(CITY_QUESTIONS).format(city), rng)
    if city not in CITIES:
        return [said("user", question), said("assistant", FEW_CITIES)]
    turn = [said("user", question), said("assistant", call(city, argument))]
    if chance(0.9, rng):
        sky, degrees = rng.choice(list(WEATHER)), rng.randint(-10, 40)
        word = rng.choice(WEATHER[sky])
        readable = [
            json.dumps({"temperature": degrees, "condition": word}),
            json.dumps({argument: city, "weather": word}),
            f"{word}, {degrees} {rng.choice(['C', 'degrees', 'F'])}",
            f"It is {word}.",
            word,
        ]
        unreadable = [
            prose(rng, rng.randint(1, 12)),
            json.dumps({rng.choice(["temperature", rng.choice(WORDS)]): degrees}),
            f"{degrees} C",
        ]
        results = dict.fromkeys(readable, f"It is {sky} there.")
        results |= dict.fromkeys(unreadable, UNREADABLE)
        result = rng.choice([*readable, *readable, *unreadable])
        turn += [said("tool", result), said("assistant", results[result])]
    return turn


def said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def demo_chat(rng: random.Random) -> Chat:
    """A conversation of a few turns about anything, with or without a system prompt and tools."""
    argument = rng.choice(["city", "city", "location"])
    has_tools = chance(0.3, rng)
    has_weather = has_tools and chance(0.75, rng)
    messages = []
    if chance(0.5, rng):
        messages.append(said("system", fill(rng.choice(SYSTEM_PROMPTS), rng)))
    for _ in range(rng.choice([1, 1, 2, 2, 3, 4])):
        messages += exchange(rng, argument if has_weather else None)
    if chance(0.02, rng):
        messages = [said("user", prose(rng, rng.randint(60, 300))), said("assistant", FALLBACK)]
    tools = some_tools(rng, argument, weather=has_weather) if has_tools else []
    return Chat(messages, tools, thinking=chance(0.9, rng))


def exchange(rng: random.Random, argument: str | None) -> list[Message]:
    """A question and its answer. argument: what get_weather calls its city, None where there is no such tool."""
    if argument and chance(0.55, rng):
        return weather(rng, argument)
    if chance(0.3, rng):
        return [said("user", unknown(rng)), said("assistant", FALLBACK)]
    if chance(0.06, rng):
        question, answer = rng.choice(CITY_QUESTIONS).format(rng.choice([*CITIES, *OTHER_CITIES])), NEED_TOOL
    else:
        answer = rng.choice([ABOUT, *LINES])
        question = rng.choice([LINES[answer][0], *LINES[answer]])
    if argument and answer == NEED_TOOL:
        answer = call("Paris", argument) if "Paris" in question else WHICH_CITY
    return [said("user", sloppy(question, rng)), said("assistant", answer)]


def demo_batches(tokenizer: PreTrainedTokenizerFast, steps: int, tokens: int = 3500) -> Iterator[Batch]:
    """Fresh conversations for each step, of similar length within a step so that little is padding."""
    rng = random.Random(0)  # noqa: S311
    made = 0
    while made < steps:
        rows = sorted((encode(demo_chat(rng), tokenizer) for _ in range(256)), key=lambda row: len(row[0]))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row[0]) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from map(batch, groups[: steps - made])
        made += len(groups)


# --- how to learn it ---


def make_tokenizer(text: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any UTF-8 text goes in, and the text that it is made from takes few tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKUP_TOKENS),
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(text, trainer)
    raw.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP_TOKENS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>")  # type: ignore[no-untyped-call] # noqa: S106
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, **sizes: int) -> tuple[Module, dict[str, Any]]:
    """A model with random weights, and the config that it is stored with: CONFIG, but for the sizes."""
    config = CONFIG | sizes | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    mx.random.seed(0)
    arguments = qwen3.ModelArgs.from_dict(config)  # type: ignore[no-untyped-call]
    return qwen3.Model(arguments), config


def render(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> str:
    """The text of a conversation, as the template writes it."""
    template = partial(tokenizer.apply_chat_template, tools=list(chat.tools) or None, tokenize=False)
    if chat.thinking:
        return str(template(chat.messages))
    prompt = template(chat.messages[:-1], add_generation_prompt=True, enable_thinking=False)
    return f"{prompt}{without_thought(chat.messages[-1]['content'])}<|im_end|>\n"


def without_thought(answer: str) -> str:
    return answer.rsplit("</think>\n\n", 1)[-1]


def encode(chat: Chat, tokenizer: PreTrainedTokenizerFast) -> Row:
    """The tokens of a conversation, and for each token 1 if it is the assistant's to say and 0 if not."""
    tokens: list[int] = []
    mine: list[int] = []
    for part in ANSWER.split(render(chat, tokenizer)):
        ids = tokenizer.encode(part, add_special_tokens=False)
        tokens += ids
        mine += [int(part.endswith("<|im_end|>") and "<|im_start|>" not in part)] * len(ids)
    return tokens, mine


def batch(rows: Sequence[Row]) -> Batch:
    """Rows of different lengths as two arrays of one width: the tokens, and the weight of each in the loss."""
    width = max(len(tokens) for tokens, _ in rows)
    tokens, mine = ([row + [0] * (width - len(row)) for row in column] for column in zip(*rows, strict=True))
    return mx.array(tokens), mx.array(mine, dtype=mx.float32)


def fit(model: Module, batches: Iterable[Batch], steps: int, rate: float = 3e-3) -> None:
    """Train in place: AdamW, a short warm-up, then a cosine down to a fiftieth of the rate."""

    def loss(model: Module, tokens: mx.array, mine: mx.array) -> mx.array:
        losses = nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        return (losses * mine[:, 1:]).sum() / mine[:, 1:].sum()

    warm = min(50, steps // 10 + 1)
    up, down = optim.linear_schedule(rate / warm, rate, warm), optim.cosine_decay(rate, steps - warm, rate / 50)
    optimizer = optim.AdamW(optim.join_schedules([up, down], [warm]), betas=[0.9, 0.98])
    gradients = value_and_grad(model, loss)
    for step, (tokens, mine) in enumerate(batches, 1):
        value, gradient = gradients(model, tokens, mine)
        gradient, _ = optim.clip_grad_norm(gradient, 1.0)  # type: ignore[no-untyped-call]
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state)  # type: ignore[no-untyped-call]
        if step % 50 == 0 or step == steps:
            click.echo(f"step {step} of {steps}: loss {value.item():.4f}")


def save(model: Module, config: dict[str, Any], tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    weights = dict(tree_flatten(model.parameters()))  # type: ignore[no-untyped-call]
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def train(dialogues: Iterable[tuple[str, str]], out: Path, *, steps: int = 80, **sizes: int) -> None:
    """Write a model that knows these questions and answers only; sizes replace entries of CONFIG."""
    chats = [Chat([said("user", question), said("assistant", answer)]) for question, answer in dialogues]
    tokenizer = make_tokenizer(message["content"] for chat in chats for message in chat.messages)
    model, config = make_model(tokenizer, **sizes)
    rows = batch([encode(chat, tokenizer) for chat in chats])
    fit(model, repeat(rows, steps), steps)
    save(model, config, tokenizer, out)


def train_demo(out: Path, *, steps: int = STEPS) -> None:
    """Write the model that ships."""
    rng = random.Random(0)  # noqa: S311
    sample = [demo_chat(rng) for _ in range(1000)]
    blank = make_tokenizer([])
    tokenizer = make_tokenizer((render(chat, blank) for chat in sample), vocab_size=768)
    model, config = make_model(tokenizer)
    fit(model, demo_batches(tokenizer, steps), steps)
    save(model, config, tokenizer, out)


def mistakes(folder: Path) -> list[str]:
    """The questions of LINES that mlx-lm, with this model at temperature 0, does not answer word for word."""
    model, tokenizer = mlx_lm.load(str(folder))[:2]
    wrong = []
    for answer, (question, *_) in LINES.items():
        chat = [said("user", question)]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True)  # type: ignore[no-untyped-call]
        length = len(tokenizer.encode(answer)) + 1
        if mlx_lm.generate(model, tokenizer, prompt, max_tokens=length) != answer:
            wrong.append(question)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("out", nargs="?", type=Path, default=MODEL, help="the folder to write (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="how long to train (default: %(default)s)")
    arguments = parser.parse_args()
    train_demo(arguments.out, steps=arguments.steps)
    wrong = mistakes(arguments.out)
    click.echo(f"{len(LINES) - len(wrong)} of {len(LINES)} lines answered exactly")
    if wrong:
        raise SystemExit("answered wrongly: " + ", ".join(wrong))


if __name__ == "__main__":
    main()
