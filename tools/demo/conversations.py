"""Conversations as people have them with a model that knows a few lines: drawn at random, for training."""

import json
import random
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tools.demo.lines import (
    ABOUT,
    CITIES,
    CITY_QUESTIONS,
    CODE,
    FALLBACK,
    FEW_CITIES,
    LANGUAGES,
    LINES,
    NEED_TOOL,
    NUMBERS,
    OTHER_CITIES,
    PLACES,
    PROSE,
    SYSTEM_PROMPTS,
    TOOL_NAMES,
    UNKNOWN_QUESTIONS,
    UNREADABLE,
    WEATHER,
    WHICH_CITY,
    WORDS,
)

Message = dict[str, str]


@dataclass(frozen=True)
class Chat:
    """A whole conversation; the model learns each of its assistant messages."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool = True
    """False: the last answer follows the empty think block that the template adds for enable_thinking=False."""


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
