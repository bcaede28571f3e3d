"""Files that appear whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from localapi.system.atomic_file import replacing, write_whole


def test_a_file_is_replaced_and_gets_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "below" / "file"
    write_whole(file, b"first")
    write_whole(file, b"second", mode=0o640)
    assert file.read_bytes() == b"second"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(file.parent.iterdir()) == [file]


def test_an_error_leaves_the_file_as_it_was_and_no_draft(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def interrupted() -> None:
        with replacing(file) as draft:
            draft.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
