"""Moments at which a changed file counts as saved: a table of observations, then files as programs write them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from localapi.manifest import Manifest, ManifestSource, read
from localapi.reload.settling import (
    DOUBT_SECONDS,
    LONG_OPEN_SECONDS,
    LONG_SECONDS,
    LONG_WHOLE_SECONDS,
    OPEN_SECONDS,
    STILL_SECONDS,
    Look,
    Loss,
    Seen,
    Settling,
    look,
    loss_of,
    stillness,
)

pytestmark = pytest.mark.everyday

NOW = 0.0
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open for writing")


def text(content: str, *, writing: bool | None = False, inode: int = 1, renamed: bool = False) -> Look:
    return Look(content.encode(), len(content), (), inode, writing, renamed)


OLD = text("one: 1\ntwo: 2\nthree: 3\n")
LONGER = "zero: 0\none: 1\ntwo: 2\nthree: 3\n"
ABSENT = Look(None)
VOICE = Look(b"", 60_000_000, (60_000_000, 1))


def then(look: Look) -> Seen:
    """Return the state of the old file after another look."""
    return Seen(OLD, NOW).then(look, NOW)


IN_PIECES = then(text(LONGER[:28] + "\n")).then(text(LONGER), NOW)
STEPS: dict[str, tuple[Seen, float, float, float]] = {
    # what was seen: seconds by itself, where it loses settings, where it takes away protection
    "the same": (then(OLD), 0, 0, 0),
    "the same, open for writing": (then(replace(OLD, writing=True)), 0, 0, 0),
    "replaced by another": (then(text(LONGER, inode=2)), 0, 0, LONG_WHOLE_SECONDS),
    "replaced by a shorter one": (then(text("one: 1\n", inode=2)), 0, 0, LONG_WHOLE_SECONDS),
    "replaced, and written still": (
        then(text(LONGER, inode=2, writing=True)), OPEN_SECONDS, OPEN_SECONDS, LONG_OPEN_SECONDS,
    ),
    "renamed, where nobody tells who writes": (
        then(text(LONGER, inode=2, writing=None, renamed=True)), 0, 0, LONG_WHOLE_SECONDS,
    ),
    "made new, where nobody tells who writes": (
        then(text(LONGER, inode=2, writing=None)), STILL_SECONDS, DOUBT_SECONDS, LONG_SECONDS,
    ),
    "written in place": (then(text(LONGER)), STILL_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "written in place, where nobody tells who writes": (
        then(text(LONGER, writing=None)), STILL_SECONDS, DOUBT_SECONDS, LONG_SECONDS,
    ),
    "open for writing": (then(text(LONGER, writing=True)), OPEN_SECONDS, OPEN_SECONDS, LONG_OPEN_SECONDS),
    "empty": (then(text("")), DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "the beginning of what it was": (then(text("one: 1\ntwo: 2\n")), DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "much shorter": (then(text("four: 4\n")), DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "without the end of its last line": (then(text(LONGER[:-1])), DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "written in pieces": (IN_PIECES, DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "gone": (then(ABSENT), DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS),
    "gone and there again": (
        then(ABSENT).then(text(LONGER, inode=2), NOW), STILL_SECONDS, DOUBT_SECONDS, LONG_SECONDS,
    ),
    "replaced, then written into": (
        then(text(LONGER, inode=2)).then(text(LONGER + "x: 1\n", inode=2), NOW),
        DOUBT_SECONDS, DOUBT_SECONDS, LONG_SECONDS,
    ),
    "replaced again and again": (
        then(text(LONGER, inode=2)).then(text(LONGER + "x: 1\n", inode=3), NOW), 0, 0, LONG_WHOLE_SECONDS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_how_long_a_file_must_have_been_still_follows_from_what_was_seen_of_it(name: str) -> None:
    seen, *seconds = STEPS[name]

    assert [stillness(seen, OLD, loss) for loss in Loss] == seconds


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        (Seen(OLD, NOW), 0),
        (Seen(replace(OLD, writing=True), NOW), OPEN_SECONDS),
        (Seen(text("one: 1\n"), NOW).then(OLD, NOW), STILL_SECONDS),
    ],
)
def test_a_file_that_serves_nothing_yet_is_read_unless_somebody_writes_it(seen: Seen, seconds: float) -> None:
    assert stillness(seen, None, Loss.SETTINGS) == seconds


def test_of_a_large_file_its_size_tells_whether_it_may_be_half() -> None:
    half = Look(b"", 20_000_000, (20_000_000, 2), writing=False)
    other = Look(b"", 61_000_000, (61_000_000, 2), writing=False)

    found = [stillness(Seen(VOICE, NOW).then(each, NOW), VOICE, Loss.NOTHING) for each in (half, other)]

    assert found == [DOUBT_SECONDS, STILL_SECONDS]


# What a manifest takes away

SERVED = """\
server:
  api_keys:
    laptop: {env: LAPTOP_KEY, models: [one]}
chat:
  one:
    backend: echo
    description: first
  two:
    backend: echo
    aliases: [second, deux]
"""


@pytest.fixture
def manifest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Manifest]:
    monkeypatch.chdir(tmp_path)

    def made(text: str) -> Manifest:
        Path("models.yaml").write_text(text)
        return read(ManifestSource())

    monkeypatch.setenv("LAPTOP_KEY", "a-secret-of-no-account")
    return made


ONE = "  one:\n    backend: echo\n    description: first\n"
CHAT_ONLY = SERVED[SERVED.index("chat") :]
LOSSES = {
    "nothing": (SERVED, Loss.NOTHING),
    "a comment": (SERVED + "# more\n", Loss.NOTHING),
    "another entry": (SERVED + "  three: {backend: echo}\n", Loss.NOTHING),
    "another value": (SERVED.replace("first", "the first"), Loss.NOTHING),
    "another list": (SERVED.replace("[second, deux]", "[zwei]"), Loss.NOTHING),
    "all keys": (CHAT_ONLY, Loss.PROTECTION),
    "the bounds of a key": (SERVED.replace(", models: [one]", ""), Loss.PROTECTION),
    "a model that is loaded": (SERVED[: SERVED.index("  two")], Loss.PROTECTION),
    "one that is not": (SERVED.replace(ONE, "").replace("[one]", "[two]"), Loss.SETTINGS),
    "an option": (SERVED.replace("    description: first\n", ""), Loss.SETTINGS),
    "the end of a value": (SERVED.replace("first", "fir"), Loss.SETTINGS),
    "the end of a list": (SERVED.replace(", deux", ""), Loss.SETTINGS),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_manifest_takes_away(name: str, manifest_of: Callable[[str], Manifest]) -> None:
    edited, loss = LOSSES[name]

    assert loss_of(manifest_of(SERVED), manifest_of(edited), ["two"]) is loss


def test_a_manifest_that_is_not_valid_takes_away_what_it_says(manifest_of: Callable[[str], Manifest]) -> None:
    assert loss_of(manifest_of(SERVED), None, []) is Loss.SETTINGS


# Looks at real files


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text("one: 1\ntwo: 2\n")
    return path


@pytest.fixture
def settling(file: Path, clock: Clock) -> Settling:
    """Return the settling of a file that is served."""
    settling = Settling(lambda: [file], clock)
    settling.look()
    settling.serve()
    return settling


def test_a_file_that_does_not_change_is_read_at_once(settling: Settling) -> None:
    assert (settling.look(), settling.wait(Loss.PROTECTION)) == (True, 0)


def test_a_file_written_in_place_is_read_when_it_has_been_still(settling: Settling, file: Path, clock: Clock) -> None:
    file.write_text("one: 1\ntwo: 2\nthree: 3\n")

    assert not settling.look()
    assert settling.wait(Loss.NOTHING) == pytest.approx(STILL_SECONDS)
    clock.now += STILL_SECONDS
    assert settling.look()
    assert settling.wait(Loss.NOTHING) == pytest.approx(0)
    assert settling.wait(Loss.PROTECTION) == pytest.approx(LONG_SECONDS - STILL_SECONDS)


@on_linux
def test_a_file_that_is_renamed_into_place_is_read_at_once(settling: Settling, file: Path) -> None:
    draft = file.with_name("draft")
    draft.write_text("one: 1\n")
    draft.replace(file)

    assert (settling.look(), settling.wait(Loss.NOTHING)) == (False, 0)


@on_linux
def test_a_file_that_a_program_has_open_for_writing_is_not_read_until_it_is_closed(
    settling: Settling, file: Path, clock: Clock
) -> None:
    with file.open("a") as writer:
        writer.write("three: 3\n")
        writer.flush()
        settling.look()
        clock.now += STILL_SECONDS
        settling.look()
        assert settling.wait(Loss.NOTHING) == pytest.approx(OPEN_SECONDS - STILL_SECONDS)
    settling.look()

    assert settling.wait(Loss.NOTHING) == pytest.approx(0)


@on_linux
def test_looking_at_a_file_neither_stops_nor_harms_whoever_writes_it(file: Path) -> None:
    for number in range(200):
        assert look(file).writing is False
        with file.open("w") as writer:
            writer.write(f"{number}\n")
            writer.flush()
            assert look(file).writing is True

    assert file.read_text() == "199\n"


def test_what_is_no_file_is_looked_at_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    looks = [look(tmp_path / name) for name in ("pipe", ".", "nothing", "file\0")]

    assert [each.content for each in looks] == [b"", b"", None, b""]


def test_files_beside_the_manifest_have_to_be_still_too(settling: Settling, file: Path, clock: Clock) -> None:
    lexicon = file.with_name("lexicon.txt")
    lexicon.write_text("GIF jif\n")
    settling.look([lexicon])
    settling.serve()
    lexicon.write_text("GIF jif\nSQL sequel\n")

    settling.look([lexicon])

    assert settling.wait(Loss.NOTHING) == pytest.approx(STILL_SECONDS)
