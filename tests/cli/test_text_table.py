"""Tables on terminals of any width."""

from __future__ import annotations

from rich.cells import cell_len

from localapi.cli.text_table import table

HEAD = ["model", "state", "folder"]
ROWS = [["größe", "ready", "/a/folder/with/a/name/that/is/long"], ["模型", "", ""]]


def test_where_there_is_room_or_no_terminal_columns_are_aligned() -> None:
    aligned = [
        "model  state  folder",
        "größe  ready  /a/folder/with/a/name/that/is/long",
        "模型",
    ]
    assert table(HEAD, ROWS) == table(HEAD, ROWS, width=48) == aligned


def test_the_widest_column_is_broken_where_that_is_enough() -> None:
    assert table(HEAD, ROWS, width=36) == [
        "model  state  folder",
        "größe  ready  /a/folder/with/a/name/",
        "              that/is/long",
        "模型",
    ]


def test_on_a_narrow_terminal_nothing_is_cut_off() -> None:
    told = "".join("".join(table(HEAD, ROWS, width=20)).split())
    assert all(set(cell) <= set(told) for row in (HEAD, *ROWS) for cell in row)


def test_no_aligned_line_is_wider_than_the_terminal() -> None:
    for width in range(10, 60):
        assert max(cell_len(line) for line in table(HEAD, ROWS, width=width)) <= width
