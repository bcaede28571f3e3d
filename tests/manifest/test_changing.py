"""A page changes an entry in the manifest's text: its lines change, the others and their comments stay."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from localapi.errors import CannotEdit, ManifestError
from localapi.manifest.changing import Patch, with_patches
from localapi.manifest.excerpts import HIDDEN
from localapi.manifest.text import Text
from localapi.manifest.written import Written, written_in

pytestmark = pytest.mark.everyday

TEXT = """\
# top
server:
  log_level: info  # chatty
  api_keys: {me: {env: ME, admin: true}, bad: sk-secret-123}
chat:
  # of a
  a:  # mine
    backend: openai   # why
    url: http://me:pw@host/v1   # token: abc
    headers:
      X-A: secret1  # of A
      X-B: {env: FOO}
    aliases:  # names
      - one   # first
      # of two
      - two
    defaults:
      temperature: 0.5  # warm
      top_p: 1
    # password: hunter2
  b: {backend: echo, description: "x"}  # b
  c:
    <<: &d {swap: cold}
    backend: command
    command: [run, --api-key, sk-1, "--token=abc", "{port}"]
    env: {A: sk-2}
  d:
    <<: *d
    backend: echo
    path: ${env.MODEL:-./x}
peers:
  studio: {url: "http://x", key: {env: K}}
"""


def text_of(content: str) -> Text:
    return Text(Path("models.yaml"), content, "")


def written(section: str, entry_id: str = "", content: str = TEXT) -> Written:
    return next(each for each in written_in(text_of(content)) if (each.section, each.id) == (section, entry_id))


def changed(*patches: Patch, content: str = TEXT) -> list[str]:
    after = with_patches(text_of(content), patches)
    lines = difflib.ndiff(content.splitlines(keepends=True), after.splitlines(keepends=True))
    return [line.rstrip("\n") for line in lines if line[0] in "+-"]


def edited(section: str, entry_id: str, **options: object) -> Patch:
    now = {**written(section, entry_id).options, **options}
    return Patch(section, entry_id, {key: value for key, value in now.items() if value != "(gone)"})


@pytest.mark.parametrize("entry", written_in(text_of(TEXT)), ids=lambda entry: ".".join(entry.path))
def test_what_comes_back_unchanged_changes_nothing(entry: Written) -> None:
    assert changed(Patch(entry.section, entry.id, entry.options)) == []
    assert changed(Patch(entry.section, entry.id, yaml=entry.yaml)) == []


def test_no_secret_is_shown() -> None:
    shown = [(each.options, each.inherited, each.yaml) for each in written_in(text_of(TEXT))]
    for secret in ("sk-", "pw@", "abc", "secret1", "hunter2"):
        assert secret not in repr(shown)
    assert written("chat", "a").options["headers"] == {"X-A": HIDDEN, "X-B": {"env": "FOO"}}


@pytest.mark.parametrize(
    ("patch", "lines"),
    [
        (edited("chat", "a", backend="echo"), ["-    backend: openai   # why", "+    backend: echo   # why"]),
        (edited("chat", "a", pin=True), ["+    pin: true"]),
        (edited("chat", "a", max_concurrent="${env.MANY:-2}"), ["+    max_concurrent: ${env.MANY:-2}"]),
        (
            edited("chat", "d", path="${env.OTHER}"),
            ["-    path: ${env.MODEL:-./x}", "+    path: ${env.OTHER}"],
        ),
        (
            edited("chat", "b", description="${env.B}"),
            ['-  b: {backend: echo, description: "x"}  # b', '+  b: {backend: echo, description: "${env.B}"}  # b'],
        ),
        (
            edited("chat", "a", aliases=["one", "new", "two"]),
            ["+      - new"],
        ),
        (edited("chat", "a", aliases=["one"]), ["-      # of two", "-      - two"]),
        (
            edited("chat", "a", defaults={"temperature": 0.7, "top_p": 1}),
            ["-      temperature: 0.5  # warm", "+      temperature: 0.7  # warm"],
        ),
        (edited("chat", "a", headers={"X-A": HIDDEN}), ["-      X-B: {env: FOO}"]),
        (
            edited("chat", "b", description="(gone)"),
            ['-  b: {backend: echo, description: "x"}  # b', "+  b: {backend: echo}  # b"],
        ),
        (
            edited("chat", "c", command=["go", "--api-key", f"{HIDDEN}2", "{port}"]),
            [
                '-    command: [run, --api-key, sk-1, "--token=abc", "{port}"]',
                '+    command: [go, "--api-key", sk-1, "{port}"]',
            ],
        ),
        (edited("server", "", log_level="debug"), ["-  log_level: info  # chatty", "+  log_level: debug  # chatty"]),
        (Patch("chat", "new", {"backend": "echo"}), ["+  new:", "+    backend: echo"]),
        (Patch("speech", "v", yaml="v:\n  backend: echo\n"), ["+", "+speech:", "+  v:", "+    backend: echo"]),
        (Patch("peers", "studio"), ["-peers:", '-  studio: {url: "http://x", key: {env: K}}']),
        (Patch("chat", "a", written("chat", "a").options, new_id="z"), ["-  a:  # mine", "+  z:  # mine"]),
        (
            Patch("chat", "d", yaml=written("chat", "d").yaml.replace("echo", "echo  # now")),
            ["-    backend: echo", "+    backend: echo  # now"],
        ),
    ],
)
def test_a_change_is_the_lines_that_it_changes(patch: Patch, lines: list[str]) -> None:
    found = [line.removeprefix("+ ").removeprefix("- ") for line in changed(patch)]
    assert found == [line[1:] for line in lines]


@pytest.mark.parametrize(
    "patch",
    [
        Patch("chat", "gone"),
        Patch("chat", "a", {"headers": {"X-C": HIDDEN}}),
        Patch("chat", "new", {"backend": HIDDEN}),
        Patch("chat", "a", yaml="a:\n  backend: echo\nx:\n  backend: echo\n"),
        Patch("chat", "a", yaml=f"a:\n  backend: {HIDDEN}99\n"),
        Patch("chat", "a", {"backend": "echo"}, new_id="b"),
        Patch("chat", "c", {"backend": "echo", "swap": "warm", "<<": 1}),
        Patch("chat", "a", yaml="a: ["),
    ],
)
def test_what_cannot_be_done_is_refused(patch: Patch) -> None:
    with pytest.raises((CannotEdit, ManifestError)):
        with_patches(text_of(TEXT), [patch])


def test_what_an_alias_elsewhere_shares_is_refused() -> None:
    shared = "chat:\n  a: {backend: echo, defaults: &d {top_p: 1}}\n  b: {backend: echo, defaults: *d}\n"
    with pytest.raises(CannotEdit):
        changed(Patch("chat", "a", {"backend": "echo", "defaults": {"top_p": 0.5}}), content=shared)
    assert changed(Patch("chat", "b", {"backend": "echo", "defaults": {"top_p": 0.5}}), content=shared)


@pytest.mark.parametrize("content", ["", "# only words\n", "chat:\n", "chat: {}\n", "{}\n", "chat: ~\n"])
def test_the_first_entry_of_any_file_is_added(content: str) -> None:
    after = with_patches(text_of(content), [Patch("chat", "a", {"backend": "echo"})])
    assert written("chat", "a", after).options == {"backend": "echo"}
