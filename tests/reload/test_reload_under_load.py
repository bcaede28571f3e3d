"""Streams that never stop and a manifest that never rests: no request fails that the manifest does not explain.

Short by default; `pytest --long` runs it for 30 s and more, with as many edits as that takes.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

from tests.conftest import DIALOGUES
from tests.server import Server, save, serving

pytestmark = pytest.mark.soak

STREAMS = 8
QUESTIONS = list(DIALOGUES)
PERMANENT = ("stable", "renamed")
SECONDS_SHORT, SECONDS_LONG = 8, 45
EDITS_SHORT, EDITS_LONG = 12, 40


@dataclass
class Edits:
    """Writes manifests, good and bad, and knows which models every version of the near past had."""

    server: Server
    folder: Path
    model: Path
    broken: Path
    random: random.Random
    extra: dict[str, str] = field(default_factory=dict)
    alias: str = "name-0"
    good: int = 0
    bad: int = 0

    def text(self, more: str = "") -> str:
        entries = {
            "stable": f"{{backend: mlx-lm, path: {self.model}, preload: true, defaults: {{temperature: 0}}}}",
            "renamed": f"{{backend: mlx-lm, path: {self.model}, preload: true, aliases: [{self.alias}], "
            "defaults: {temperature: 0}}",
            **self.extra,
        }
        return "chat:\n" + "".join(f"  {name}: {entry}\n" for name, entry in entries.items()) + more

    async def one(self) -> None:
        """A random edit, awaited until the server has said what it thinks of it."""
        kind = self.random.choice([self.add, self.remove, self.change, self.rename, self.spoil, self.break_one])
        await kind()

    async def apply(self) -> None:
        self.good += 1
        save(self.folder / "models.yaml", self.text())
        attempt = await asyncio.to_thread(self.server.reload)
        assert attempt["ok"], attempt

    async def add(self) -> None:
        name = f"extra-{self.random.randrange(4)}"
        backend = self.random.choice(
            ["{backend: echo}", f"{{backend: mlx-lm, path: {self.model}, defaults: {{temperature: 0}}}}"]
        )
        self.extra[name] = backend
        await self.apply()

    async def remove(self) -> None:
        if self.extra:
            self.extra.pop(self.random.choice(list(self.extra)))
        await self.apply()

    async def change(self) -> None:
        """Another identity for an entry that streams may be using."""
        name = self.random.choice(list(self.extra) or ["extra-0"])
        length = self.random.randrange(1000, 2000)
        self.extra[name] = (
            f"{{backend: mlx-lm, path: {self.model}, context_length: {length}, defaults: {{temperature: 0}}}}"
        )
        await self.apply()

    async def rename(self) -> None:
        self.alias = f"name-{self.random.randrange(1000)}"
        await self.apply()

    async def spoil(self) -> None:
        """Something that must change nothing, and be told at its place."""
        self.bad += 1
        before = await asyncio.to_thread(self.server.status)
        wrong, line, words = self.random.choice(
            [
                (self.text("  broken: [\n"), None, "YAML"),
                (self.text("speech: {s: {backend: echo, voise: x}}\n"), self.text().count("\n") + 1, "voise"),
                (self.text().replace("stable:", "stable: {}\n  again:", 1), 2, "backend"),
            ]
        )
        save(self.folder / "models.yaml", wrong)
        attempt = await asyncio.to_thread(self.server.reload)
        assert not attempt["ok"]
        after = await asyncio.to_thread(self.server.status)
        assert after["revision"] == before["revision"]
        problem = after["last_attempt"]["problems"][0]
        assert words in problem["message"] + problem["key"], problem
        assert line in (None, problem["line"]), problem

    async def break_one(self) -> None:
        """An entry whose new model cannot be loaded, beside another edit: it alone stays as it was."""
        self.alias = f"name-{self.random.randrange(1000)}"
        save(self.folder / "models.yaml", self.text().replace(f"path: {self.model}", f"path: {self.broken}", 1))
        attempt = await asyncio.to_thread(self.server.reload)
        assert (attempt["ok"], list(attempt["not_loaded"])) == (True, ["stable"]), attempt
        self.good += 1


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path) -> Iterator[Server]:
    entry = f"{{backend: mlx-lm, path: {tiny_model}, preload: true, defaults: {{temperature: 0}}}}"
    with serving(tmp_path, f"chat:\n  stable: {entry}\n  renamed: {entry}\n") as server:
        yield server


@pytest.mark.timeout(600)
async def test_no_request_fails_while_the_manifest_changes_at_random(
    server: Server, tmp_path: Path, tiny_model: Path, request: pytest.FixtureRequest
) -> None:
    long = request.config.getoption("--long")
    seconds, edits_wanted = (SECONDS_LONG, EDITS_LONG) if long else (SECONDS_SHORT, EDITS_SHORT)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    edits = Edits(server, tmp_path, tiny_model, broken, random.Random(7))
    await edits.apply()
    answers: list[str] = []
    async with server.async_client() as client:
        done = asyncio.Event()
        streams = [asyncio.create_task(stream_for_ever(client, edits, at, done, answers)) for at in range(STREAMS)]
        await asyncio.to_thread(wait_until_ready, server)
        pids = {name: server.model(name)["place"]["pid"] for name in PERMANENT}
        deadline = asyncio.get_running_loop().time() + seconds
        while edits.good + edits.bad < edits_wanted or asyncio.get_running_loop().time() < deadline:
            await edits.one()
        done.set()
        await asyncio.gather(*streams)
    assert {name: server.model(name)["place"]["pid"] for name in PERMANENT} == pids
    assert all(pids.values())
    assert {server.model(name)["loads"] for name in PERMANENT} == {1}
    print(f"{len(answers)} answers, {edits.good} edits applied, {edits.bad} refused")
    assert edits.bad
    assert len(answers) > STREAMS


def wait_until_ready(server: Server) -> None:
    """`preload` has begun it; the time limit of the test is the bound."""
    while server.request("GET", "/health/ready").status != 200:
        pass


async def stream_for_ever(
    client: openai.AsyncOpenAI, edits: Edits, at: int, done: asyncio.Event, answers: list[str]
) -> None:
    """Ask permanent and passing models in turn. A passing one may be unknown: when an edit has removed it."""
    choose = random.Random(at)
    while not done.is_set():
        name = choose.choice([*PERMANENT, *edits.extra])
        passing = name not in PERMANENT
        question = choose.choice(QUESTIONS)
        try:
            stream = await client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": question}], stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        except openai.NotFoundError:
            assert passing, name
            continue
        assert text in (DIALOGUES[question], question), (name, text)
        answers.append(text)
