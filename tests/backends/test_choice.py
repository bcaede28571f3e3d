"""Order in which a request tries several places, and the memory of conversations."""

from __future__ import annotations

import pytest

from localapi.backends.choice import BLOCK_CHARACTERS, Candidate, Choose, ConversationMemory, conversation_keys, ranked
from localapi.worker.protocol import Chat, Complete, FunctionTool, Message, Tokenize

A, B, C = (Candidate(name=name) for name in "abc")


def place(name: str, requests: int = 0, **more: object) -> Candidate:
    return Candidate(name=name, requests=requests, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choose", "candidates", "remembered", "limit", "expected"),
    [
        ("in-order", [A, B, C], None, None, "abc"),
        ("in-order", [place("a", 9), B], None, None, "ab"),
        ("in-order", [place("a", 9), B, C], None, 9, "bca"),
        ("in-order", [place("a", 8), B], None, 9, "ab"),
        ("in-order", [place("a", 9), place("b", 10), place("c", 9)], "b", 9, "acb"),
        ("in-order", [place("a", is_full=True), B], None, None, "ba"),
        ("in-order", [place("a", 1, is_full=True), place("b", 9)], None, 3, "ba"),
        ("in-order", [place("a", away="gone", away_seconds=9), B], "a", None, "ba"),
        ("in-order", [place("a", away="gone", away_seconds=9), place("b", away="x", away_seconds=1)], None, None, "ba"),
        ("in-order", [place("a", away="gone"), place("b", is_full=True)], None, None, "ba"),
        ("in-order", [place("a", is_loaded=False), B], None, None, "ab"),
        ("in-order", [A, B], "b", None, "ab"),
        ("least-busy", [place("a", 2), place("b", 1), C], None, None, "cba"),
        ("least-busy", [place("a", 2, slots=8), place("b", 1, slots=2)], None, None, "ab"),
        ("least-busy", [place("a", 2, slots=1), place("b", 3)], None, None, "ba"),
        ("least-busy", [place("a", is_loaded=False), B], None, None, "ba"),
        ("least-busy", [place("a", is_loaded=False), place("b", 1)], None, None, "ab"),
        ("least-busy", [A, B], "b", None, "ab"),
        ("sticky", [A, place("b", 20)], "b", None, "ba"),
        ("sticky", [place("a", 2), place("b", 1)], None, None, "ba"),
        ("sticky", [A, place("b", 4)], "b", 4, "ab"),
        ("sticky", [A, place("b", away="gone")], "b", None, "ab"),
        ("sticky", [place("a", 1), B, C], "gone", None, "bca"),
        ("least-busy", [], None, None, ""),
    ],
)
def test_the_order_in_which_places_are_tried(
    choose: Choose, candidates: list[Candidate], remembered: str | None, limit: int | None, expected: str
) -> None:
    found = ranked(candidates, choose, remembered=remembered, spill_over_at=limit)
    assert "".join(each.name for each in found) == expected


def chat(*turns: str, tools: tuple[str, ...] = ()) -> Chat:
    messages = [Message(role, text) for role, _, text in (turn.partition(":") for turn in turns)]
    return Chat(id=1, messages=messages, tools=[FunctionTool(name) for name in tools])


@pytest.mark.parametrize(
    ("before", "now", "known"),
    [
        (chat("user:a"), chat("user:a", "assistant:b", "user:c"), True),
        (chat("system:s", "user:a"), chat("system:s", "user:a", "assistant:b", "user:c"), True),
        (chat("system:s", "user:a", "assistant:b", "user:c"), chat("system:s", "user:a", "assistant:x"), True),
        (chat("system:s", "user:a"), chat("system:s", "user:b"), False),
        (chat("system:s", "user:a"), chat("system:t", "user:a"), False),
        (chat("developer:s", "user:a"), chat("developer:s", "user:b"), False),
        (chat("user:a"), chat("user:a", tools=("f",)), False),
        (chat("user:a"), chat("assistant:a"), False),
        (Complete(id=1, prompt="x" * 5000), Complete(id=2, prompt="x" * 4000 + "y"), True),
        (Complete(id=1, prompt="x" * BLOCK_CHARACTERS), Complete(id=2, prompt="y" * BLOCK_CHARACTERS), False),
        (Complete(id=1, prompt=[1] * 5000), Complete(id=2, prompt=[1] * 4000 + [2]), True),
        (Tokenize(1, "a"), Tokenize(2, "a"), False),
    ],
)
def test_a_conversation_is_known_by_its_beginning(before: Chat, now: Chat, known: bool) -> None:
    memory = ConversationMemory()
    memory.note(conversation_keys([before]), "there")
    assert memory.place_of(conversation_keys([now])) == ("there" if known else None)


def test_the_longest_known_beginning_counts() -> None:
    memory = ConversationMemory()
    memory.note(conversation_keys([chat("user:a")]), "first")
    memory.note(conversation_keys([chat("user:a", "assistant:b", "user:c")])[1:], "second")
    assert memory.place_of(conversation_keys([chat("user:a", "assistant:b", "user:c", "assistant:d")])) == "second"
    assert memory.place_of(conversation_keys([chat("user:a", "assistant:x")])) == "first"


def test_the_memory_of_conversations_is_bounded_and_forgets_the_oldest() -> None:
    memory = ConversationMemory(most=3)
    for name in ("a", "b", "c", "a", "d"):
        memory.note([name.encode()], name)
    assert len(memory) == 3
    assert [memory.place_of([name.encode()]) for name in ("a", "b", "c", "d")] == ["a", None, "c", "d"]
