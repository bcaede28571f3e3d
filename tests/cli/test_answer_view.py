"""An answer while it is written, on a screen that obeys what it is sent."""

from __future__ import annotations

import io

import pyte
from rich.console import Console

from localapi.cli.answer_view import AnswerView
from localapi.cli.asking import Piece
from localapi.cli.live_area import LiveArea

WIDTH, HEIGHT = 60, 12
CODE = "".join(f"line_{number} = {number}\n" for number in range(40))
TABLE = "| a | b |\n|---|---|\n" + "".join(f"| row{number} | x |\n" for number in range(20))
ANSWER = f"Some code:\n\n```python\n{CODE}```\n\n{TABLE}\nThe **end**.\n"


class Screen:
    """A console, and what a terminal would show of it."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self.console = Console(file=self._out, force_terminal=True, width=WIDTH, height=HEIGHT, legacy_windows=False)

    def lines(self) -> list[str]:
        """All lines that are not blank, also those that have left the screen."""
        screen = pyte.HistoryScreen(WIDTH, HEIGHT, history=1000)
        pyte.Stream(screen).feed(self._out.getvalue().replace("\n", "\r\n"))
        gone = ["".join(row[at].data for at in range(WIDTH)) for row in screen.history.top]
        return [line.strip() for line in [*gone, *screen.display] if line.strip()]


def written(screen: Screen, *pieces: Piece) -> list[str]:
    """Return what stays on the screen of an answer in these pieces, drawn after each."""
    with AnswerView(screen.console) as view:
        for piece in pieces:
            view.show(piece)
            view._area.draw()
    return screen.lines()


def test_what_is_longer_than_the_screen_is_there_once_and_whole() -> None:
    pieces = [Piece("text", ANSWER[at : at + 7]) for at in range(0, len(ANSWER), 7)]
    lines = written(Screen(), *pieces)
    assert lines[:2] == ["Some code:", "```python"]
    assert lines[2:42] == CODE.splitlines()
    assert [line.split()[0] for line in lines[45:65]] == [f"row{number}" for number in range(20)]
    assert lines[-1] == "The end."


def test_notes_and_spinners_leave_nothing_behind() -> None:
    notes = [Piece("note", "loading demo: weights 40 %"), Piece("thought", "Hm.\n\nYes."), Piece("text", "Four.")]
    assert written(Screen(), *notes) == ["Hm.", "Yes.", "Four."]


def test_what_is_being_written_is_seen() -> None:
    screen = Screen()
    with AnswerView(screen.console) as view:
        view.show(Piece("text", "first block\n\nsecond bl"))
        view._area.draw()
        assert screen.lines() == ["first block", "second bl"]
        view.show(Piece("text", CODE))
        view._area.draw()
        assert screen.lines()[-1] == "line_39 = 39"  # of a block that does not fit, the end


def test_a_print_of_one_thread_and_the_drawing_of_another_do_not_mix() -> None:
    screen = Screen()
    area = LiveArea(screen.console, lambda: "drawn\n" * 5)
    with area:
        for number in range(100):
            area.print(f"printed {number}\n")
    assert screen.lines() == [f"printed {number}" for number in range(100)]
