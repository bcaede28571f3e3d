"""Changes in a line."""

from __future__ import annotations

import pytest

from localapi.reload.diff import Diff

pytestmark = pytest.mark.everyday


def test_each_model_is_told_with_a_sign_for_what_became_of_it() -> None:
    assert str(Diff(("new",), ("other",), ("a", "b"), ("gone",), server=True)) == "+new ~other =a =b -gone server"
    assert str(Diff(server=True)) == "server"
    assert str(Diff()) == "nothing changed"


def test_a_line_does_not_grow_with_thousands_of_models() -> None:
    line = str(Diff(added=[f"m{at}" for at in range(3000)], removed=["last"], server=True))
    assert line.startswith("+m0 +m1 ")
    assert line.endswith(" +m39 and 2961 more server")
