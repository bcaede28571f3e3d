"""The lines around what is wrong in a manifest: those that were read, and none that may hold a secret."""

from __future__ import annotations

import pytest

from localapi.errors import Excerpt, ManifestError
from localapi.manifest import ManifestSource, Overrides, read

pytestmark = pytest.mark.everyday

SECRET = "sk-do-not-show-0123456789"
HIDDEN = "········"


def excerpts(text, write, profile=None):
    write(text)
    if profile is not None:
        write(profile, "configs/test.yaml")
    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(profile="test" if profile is not None else None))
    return [problem.excerpt for problem in caught.value.problems]


def test_three_lines_before_and_after_the_one_that_is_meant(write):
    text = "# 1\n# 2\n# 3\n# 4\nchat: {a: {backend: nothing}}\n# 6\n# 7\n# 8\n# 9\n"
    shown = ("# 2", "# 3", "# 4", "chat: {a: {backend: nothing}}", "# 6", "# 7", "# 8")
    assert excerpts(text, write) == [Excerpt(2, shown)]


def test_a_mistake_in_yaml_itself_has_its_lines_too(write):
    (excerpt,) = excerpts("chat:\n  a: [\nspeech:\n", write)
    assert excerpt.first_line == 1
    assert "  a: [" in excerpt.lines


def test_each_file_has_its_own_lines(write):
    found = excerpts("chat: {a: {backend: nothing}}", write, "# a profile\nspeech: {b: {backend: nowhere}}")
    assert found == [
        Excerpt(1, ("chat: {a: {backend: nothing}}",)),
        Excerpt(1, ("# a profile", "speech: {b: {backend: nowhere}}")),
    ]


def test_what_the_environment_said_has_none(write, monkeypatch):
    monkeypatch.setenv("CHAT_MODEL_ID", "missing")
    write("chat: {a: {backend: echo}}")
    with pytest.raises(ManifestError) as caught:
        read(ManifestSource(overrides=Overrides.read()))
    assert [problem.excerpt for problem in caught.value.problems] == [None]


def test_long_lines_and_many_problems_are_cut(write):
    long = f"chat: {{a: {{backend: nothing, description: {'x ' * 2500}}}}}"
    (excerpt,) = excerpts(long, write)
    assert len(excerpt.lines[0]) == 201
    many = "chat:\n" + "".join(f"  m{number}: {{backend: nothing}}\n" for number in range(50))
    assert sum(excerpt is not None for excerpt in excerpts(many, write)) == 20


@pytest.mark.parametrize(
    "keys",
    [
        f"  api_keys:\n    team: {SECRET}\n",
        f"  api_keys: {{team: {SECRET}}}\n",
        f"  api_keys: {{\n team: {SECRET},\n other: [\n{SECRET}]}}\n",
        f"  api_keys:\n    team:\n\n      env: {SECRET}\n    # {SECRET}\n",
        f'  "api_keys":\n    team: {SECRET}\n',
        f"  api_key: {SECRET}\n",
        f"  apiKeys:\n   - {SECRET}\n",
        f"  hf_token: {SECRET}\n",
        f"  password: '{SECRET}'\n",
        f"  api_keys:\n    team: {SECRET}: {SECRET}\n",
    ],
)
@pytest.mark.parametrize("last", ["chat: {a: {backend: nothing}}", "chat: ["])
def test_no_secret_is_shown_wherever_somebody_put_one(keys, last, write):
    found = excerpts(f"server:\n  log_level: loud\n{keys}{last}\n", write)
    shown = "\n".join(line for excerpt in found if excerpt for line in excerpt.lines)
    assert SECRET not in shown
    assert HIDDEN in shown


def test_what_stands_after_the_keys_is_shown_again(write):
    text = "server:\n  api_keys:\n    team: {env: KEY_OF_TEAM}\n  log_level: loud\nchat: {a: {backend: echo}}\n"
    lines = excerpts(text, write)[-1].lines
    assert lines[2:4] == (f"    {HIDDEN}", "  log_level: loud")


def test_numbers_of_tokens_are_no_secrets(write):
    (excerpt,) = excerpts("chat: {a: {backend: nothing}}\n# max_tokens: 1024", write)
    assert excerpt.lines[1] == "# max_tokens: 1024"
