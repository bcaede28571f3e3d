"""The levels of effort that templates know."""

from __future__ import annotations

import pytest

from localapi.worker.llm.prompt import known_levels, nearest_level

pytestmark = pytest.mark.everyday


@pytest.mark.parametrize(
    ("template", "asked", "level"),
    [
        ("{{ reasoning_effort }}", "xhigh", "high"),
        ("{{ reasoning_effort }}", "none", "low"),
        ("{{ reasoning_effort }}", "medium", "medium"),
        ("{% if reasoning_effort == 'high' or reasoning_effort == 'max' %}", "low", "high"),
        ("{% if reasoning_effort in ['none', 'high'] %}", "none", "none"),
        ("{{ reasoning_effort }}", "their own", "their own"),
        ("{% if reasoning_effort == 'max' %}", "max", "max"),
        ("{% if reasoning_effort == 'max' %}", "low", "low"),
        ("{% if reasoning_effort not in ['high', 'low', 'no_think'] %}", "none", "no_think"),
    ],
)
def test_an_effort_becomes_the_nearest_level_of_the_template(template: str, asked: str, level: str) -> None:
    assert nearest_level(asked, known_levels(template)) == level
