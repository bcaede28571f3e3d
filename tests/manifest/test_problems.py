"""Errors of a manifest as people read them: file, line, column, key, and what to do."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from localapi.errors import ManifestError
from localapi.manifest import ManifestSource, read

pytestmark = pytest.mark.everyday

CASES = {
    "an unknown key of an entry is shown with the nearest known one": (
        """
        chat:
          a:
            backend: mlx-lm
            path: demo
            max_bach: 3
        """,
        [
            "models.yaml:5:5: chat.a.max_bach: …'max_bach'…'max_batch'…"
            "(known: unsupported, locked, …env, path, …place, backend, …, aliases, …)"
        ],
    ),
    "a place on no cluster": (
        "chat: {a: {backend: mlx-lm, path: demo, place: {cpus: 2}}}",
        ["models.yaml:1:48: chat.a.place: …server.cluster…"],
    ),
    "a cluster by the address of Ray's client": (
        "server: {cluster: {ray: 'ray://box:10001'}}",
        ["models.yaml:1:25: server.cluster.ray: …host:port…ray://…"],
    ),
    "a command line instead of a list is shown as one": (
        "chat: {a: {backend: command, command: 'llama-server --port {port} -m \"a b\"'}}",
        ['models.yaml:1:39: chat.a.command: …a list…[llama-server, --port, "{port}", -m, "a b"]…'],
    ),
    "a command without a port": (
        "chat: {a: {backend: command, command: [llama-server]}}",
        ["models.yaml:1:39: chat.a.command: …{port}…"],
    ),
    "an unknown placeholder in a command": (
        """
        chat:
          a:
            backend: command
            command: [llama-server, --port, "{port}",
              --alias, "{nam}"]
        """,
        ["models.yaml:5:16: chat.a.command.4: …{nam}…{name}…"],
    ),
    "a placeholder as a shell would write it": (
        'chat: {a: {backend: command, command: [x, "${PORT}"]}}',
        ["models.yaml:1:43: chat.a.command.1: …{port}…${PORT}…"],
    ),
    "braces that are no placeholder": (
        """
        chat:
          a: {backend: command, command: [x, "{port}", '{"thinking": false}']}
        """,
        ["models.yaml:2:48: chat.a.command.2: …{{ and }}…"],
    ),
    "a path that a command needs": (
        'chat: {a: {backend: command, command: [x, "{port}", "{path}"]}}',
        ["models.yaml:1:39: chat.a.command: …`path`…"],
    ),
    "a variable that cannot exist": (
        "chat: {a: {backend: mlx-lm, path: demo, env: {a-b: 1}}}",
        ["models.yaml:1:46: chat.a.env: …letters, digits and _…"],
    ),
    "a variable whose value is no text and is not shown": (
        "chat: {a: {backend: mlx-lm, path: demo, env: {KEY: [s3cret]}}}",
        ["models.yaml:1:52: chat.a.env.KEY: should be text or …{env: NAME} or {file: path}"],
    ),
    "a folder that does not exist": (
        'chat: {a: {backend: command, command: [x, "{port}"], cwd: ./none}}',
        ["models.yaml:1:59: chat.a.cwd: {folder}/none does not exist"],
    ),
    "a template variable that is a parameter of the library": (
        "chat: {a: {backend: echo, defaults: {chat_template_kwargs: {tokenize: true}}}}",
        ["models.yaml:1:60: chat.a.defaults.chat_template_kwargs: …'tokenize'…found a mapping"],
    ),
    "a misspelt backend key is recognised": (
        """
        chat:
          a:
            bakend: echo
        """,
        ["models.yaml:3:5: chat.a.bakend: …unknown key…'bakend'…'backend'…(one of echo, mlx-lm"],
    ),
    "a missing backend lists the backends": (
        """
        chat:
          a: {aliases: [b]}
        """,
        ["models.yaml:2:3: chat.a.backend: …missing…(one of echo, mlx-lm"],
    ),
    "an unknown backend lists the backends": (
        """
        chat:
          a: {backend: mlxlm}
        """,
        ["models.yaml:2:16: chat.a.backend: …unknown backend…'mlxlm'…'mlx-lm'…(known: echo, mlx-lm"],
    ),
    "a backend that is not text": (
        "chat: {a: {backend: [echo]}}",
        ["models.yaml:1:21: chat.a.backend: …found a list"],
    ),
    "an unknown key of a mapped voice": (
        "speech: {a: {backend: echo, voices: {x: {voice: y, speeed: 2}}}}",
        ["models.yaml:1:52: speech.a.voices.x.speeed: …unknown key…'speed'…(known: voice, speed, …)"],
    ),
    "an option of another backend says whose it is": (
        "speech: {a: {backend: espeak-ng, path: x}}",
        ["models.yaml:1:34: speech.a.path: …'espeak-ng'…'path'"],
    ),
    "a request parameter beside defaults is sent there": (
        "chat: {a: {backend: echo, temperature: 1}}",
        ["models.yaml:1:27: chat.a.temperature: …unknown key…'temperature'…`defaults: {temperature: ...}`"],
    ),
    "a missing path says what a path is": (
        """
        chat:
          a:
            backend: mlx-lm
        """,
        ["models.yaml:2:3: chat.a.path: …missing…'mlx-lm'…owner/name"],
    ),
    "a number where text is wanted is shown as it was written": (
        "chat: {a: {backend: echo, description: 1.10}}",
        [
            "models.yaml:1:40: chat.a.description: …found the number 1.10…quote",
        ],
    ),
    "text where a number is wanted": (
        "chat: {a: {backend: echo, defaults: {temperature: '1', seed: 1.5}}}",
        [
            "models.yaml:1:51: chat.a.defaults.temperature: …found the text '1'",
            "models.yaml:1:62: chat.a.defaults.seed: …found the number 1.5",
        ],
    ),
    "a number out of range": (
        "chat: {a: {backend: echo, defaults: {temperature: 2.5, top_p: 0, max_tokens: -1}}}",
        [
            "models.yaml:1:51: chat.a.defaults.temperature: …at most 2…found the number 2.5",
            "models.yaml:1:63: chat.a.defaults.top_p: …more than 0…found the number 0",
            "models.yaml:1:78: chat.a.defaults.max_tokens: …at least 1…found the number -1",
        ],
    ),
    "yes is text and no boolean": (
        "chat: {a: {backend: echo, preload: yes}}",
        ["models.yaml:1:36: chat.a.preload: …found the text 'yes'"],
    ),
    "a choice that does not exist": (
        "chat: {a: {backend: echo, swap: hot}}",
        ["models.yaml:1:33: chat.a.swap: …'warm'…'cold'…found the text 'hot'"],
    ),
    "a union names everything it takes": (
        "chat: {a: {backend: echo, defaults: {stop: 5}}}",
        ["models.yaml:1:44: chat.a.defaults.stop: …found the number 5…quote"],
    ),
    "an item of a list has its own place": (
        """
        chat:
          a:
            backend: echo
            aliases:
              - b
              - 4
            defaults:
              stop: [""]
        """,
        [
            "models.yaml:6:9: chat.a.aliases.1: …found the number 4…quote",
            "models.yaml:8:14: chat.a.defaults.stop.0: …found the text ''",
        ],
    ),
    "a duration that is none": (
        "server: {keep_alive: soon}",
        ["models.yaml:1:22: server.keep_alive: …found the text 'soon'"],
    ),
    "endless draining": (
        "server: {drain_seconds: .inf}",
        ["models.yaml:1:25: server.drain_seconds: …found the number .inf"],
    ),
    "a section that is a list": ("chat: [a]", ["models.yaml:1:7: chat: …found a list"]),
    "an entry that is text": (
        "chat: {a: mlx-lm}",
        ["models.yaml:1:11: chat.a: …found the text 'mlx-lm'"],
    ),
    "an entry with nothing in it": (
        "chat:\n  a:\n",
        ["models.yaml:2:3: chat.a: …is empty"],
    ),
    "an unknown section": (
        "chats: {}",
        ["models.yaml:1:1: chats: …unknown key…'chats'…'chat'…(known: include, server, peers, echo, chat, speech, …)"],
    ),
    "an id with a blank at its end": (
        'chat: {"a ": {backend: echo}}',
        ["models.yaml:1:8: chat.a : …found…'a '"],
    ),
    "an id in both sections": (
        """
        chat:
          a: {backend: echo}
        speech:
          a: {backend: echo}
        """,
        ["models.yaml:4:3: speech.a: …'a'…already taken…models.yaml:2:3"],
    ),
    "an alias that is another entry's id or alias": (
        """
        chat:
          a: {backend: echo, aliases: [b, c]}
          b: {backend: echo, aliases: [c]}
        """,
        [
            "models.yaml:2:32: chat.a.aliases.0: …'b'…already taken…models.yaml:3:3",
            "models.yaml:3:32: chat.b.aliases.0: …'c'…alias…models.yaml:2:35",
        ],
    ),
    "a duplicate key names both places": (
        """
        chat:
          a: {backend: echo}
          a: {backend: echo}
        """,
        ["models.yaml:3:3: chat.a: …'a'…line 2, column 3"],
    ),
    "a key that is a number": (
        "chat: {4: {backend: echo}}",
        ["models.yaml:1:8: chat: …found the number 4…quote"],
    ),
    "a tag": (
        "chat: {a: {backend: !!python/name:os.system echo}}",
        ["models.yaml:1:21: chat.a.backend: …tags"],
    ),
    "an alias without an anchor": (
        "chat: *all",
        ["models.yaml:1:7: chat: …alias"],
    ),
    "an alias inside what it stands for": (
        "chat: &all {a: *all}",
        ["models.yaml:1:16: chat.a: …alias"],
    ),
    "a path that leads nowhere": (
        "chat: {a: {backend: mlx-lm, path: nowhere}}",
        ["models.yaml:1:35: chat.a.path: …'nowhere'…does not exist…owner/name"],
    ),
    "a control character": (
        'chat: {a: {backend: "ec\\0ho"}}',
        ["models.yaml:1:21: chat.a.backend: …control character…U+0000"],
    ),
    "an empty file": ("# nothing\n", ["models.yaml: …is empty"]),
    "a file that says null": ("~", ["models.yaml:1:1: …is empty"]),
    "a list at the top": (
        "- a",
        ["models.yaml:1:1: should consist of keys such as chat: …found a list"],
    ),
    "two documents": (
        "chat: {}\n---\nchat: {}\n",
        ["models.yaml:2:1: …second document"],
    ),
}

SYNTAX = {
    "a tab": ("chat:\n\ta: 1\n", "2:1: …tab"),
    "a wrong indentation": (
        "chat:\n  a: 1\n b: 2\n",
        "3:2: …indented",
    ),
    "an open list": (
        "a: [1, 2\nb: 3\n",
        "2:2: …line 1, column 4…not closed…','…']'",
    ),
    "an open mapping": (
        "a: {x: 1\nb: 3\n",
        "2:2: …line 1, column 4…not closed…','…'}'",
    ),
    "an open quote": ("a: 'x\nb: 1\n", "1:4: …never closed"),
    "a quote inside quotes": (
        "a: 'it's'\n",
        "1:8: …'s'…quote",
    ),
    "a key without a colon": (
        "a: 1\nb\n",
        "2:1: …':'…`key: value`",
    ),
    "a colon in text": (
        "a: b: c\n",
        "1:5: …':'…indentation…': '",
    ),
    "a reserved character": ("a: @x\n", "1:4: …'@'…quote"),
    "a closing bracket alone": ("a: }\n", "1:4: …found…'}'"),
}

BYTES = {
    "bytes that are no UTF-8": (
        b"chat:\n  a: \xff\xfe\n",
        "2:6: …UTF-8…found the byte 0xff",
    ),
    "a control character in the file": (
        b"a: 1\r\nb: \x07",
        "2:4: …control character…U+0007",
    ),
}


def says(line: str, facts: str) -> bool:
    """Return whether a line has these facts in this order; an ellipsis in `facts` stands for any words."""
    return re.match(".*".join(map(re.escape, facts.split("…"))), line) is not None


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_manifest_is_explained(name, problems_of, folder):
    text, expected = CASES[name]

    lines = problems_of(textwrap.dedent(text).lstrip("\n"))
    assert len(lines) == len(expected)
    for line, facts in zip(lines, expected, strict=True):
        assert says(line, facts.replace("{folder}", str(folder)))


@pytest.mark.parametrize("name", SYNTAX)
def test_a_syntax_error_is_explained_in_plain_words(name, problems_of):
    text, expected = SYNTAX[name]

    (line,) = problems_of(text)
    assert says(line, f"models.yaml:{expected}")


@pytest.mark.parametrize("name", BYTES)
def test_a_file_that_is_no_text_is_explained(name, folder):
    data, expected = BYTES[name]
    (folder / "models.yaml").write_bytes(data)

    with pytest.raises(ManifestError) as caught:
        read(ManifestSource())

    assert says(str(caught.value), f"models.yaml:{expected}")


def test_all_problems_of_both_files_are_told_in_the_order_of_files_and_lines(problems_of):
    manifest = "chat:\n  a: {backend: echo, swap: hot}\n  b: {backend: ech}\n  b: {backend: echo, preload: 1}\n"
    profile = "chat:\n  c: {backend: echo, x: 1}\nserver: {log_level: loud}\n"

    assert [line.split(": ")[0] for line in problems_of(manifest, profile)] == [
        "models.yaml:2:28",
        "models.yaml:4:3",
        "models.yaml:4:31",
        "configs/test.yaml:2:22",
        "configs/test.yaml:3:21",
    ]


def test_an_alias_bomb_is_refused_at_once(problems_of):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]

    (line,) = problems_of("\n".join(lines))

    assert line == "models.yaml:5:10: more than 20,000 values up to here, including repetitions by aliases; shorten it"


def test_a_deep_nest_is_refused(problems_of):
    assert problems_of("a: " + "[" * 5000) == [
        "models.yaml:1:53: is nested more than 50 levels deep; a manifest needs five"
    ]


def test_a_nest_made_of_aliases_is_refused(problems_of):
    lines = ["a0: &a0 [[[[[[[[[[1]]]]]]]]]]", *(f"a{n}: &a{n} [[[[[[[[[[*a{n - 1}]]]]]]]]]]" for n in range(1, 9))]

    (line,) = problems_of("\n".join(lines))

    assert line == "models.yaml:5:19: is nested more than 50 levels deep; a manifest needs five"


def test_a_huge_file_is_refused(problems_of):
    assert problems_of("#" * 1_100_000) == ["models.yaml: is larger than 1024 KiB; is this the right file?"]


def test_a_folder_in_the_place_of_the_file(folder):
    (folder / "models.yaml").mkdir()

    with pytest.raises(ManifestError, match=r"^models.yaml: is a folder; give a YAML file$"):
        read(ManifestSource())


def test_a_missing_file_that_was_asked_for():
    with pytest.raises(ManifestError, match=r"^mine.yaml: does not exist; create it, or give another file$"):
        read(ManifestSource(Path("mine.yaml")))


def test_no_manifest_and_no_environment_says_what_to_do(problems_of):
    (line,) = problems_of(None)
    assert says(line, "models.yaml: …`localapi init`…--manifest…CHAT_MODEL_PATH, AUDIO_MODEL_PATH or ECHO_MODE=1")


def test_a_home_that_does_not_exist_is_a_problem_of_the_path(problems_of):
    (line,) = problems_of("chat: {a: {backend: mlx-lm, path: ~nobody-of-this-name/x}}")

    assert line.startswith("models.yaml:1:35: chat.a.path: ")
