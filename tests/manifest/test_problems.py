"""What a person reads when a manifest is wrong: file, line, column, key, and what to do."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from localapi.errors import ManifestError
from localapi.manifest import ManifestSource, read

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
            "models.yaml:5:5: chat.a.max_bach: unknown key 'max_bach'; did you mean 'max_batch'? (known: locked, "
            "backend, path, revision, adapter, draft, kv_bits, context_length, max_batch, kv_cache_mb, "
            "max_stall_ms, prefix_cache_mb, cpu_weights, prefix_cache_disk_mb, defaults, aliases, description, "
            "preload, pin, keep_alive, max_concurrent, max_waiting, queue_timeout_seconds, request_timeout_seconds, "
            "stall_seconds, swap)"
        ],
    ),
    "a template variable that is a parameter of the library": (
        "chat: {a: {backend: echo, defaults: {chat_template_kwargs: {tokenize: true}}}}",
        [
            "models.yaml:1:60: chat.a.defaults.chat_template_kwargs: should be variables of the chat template; "
            "'tokenize' is reserved; found a mapping"
        ],
    ),
    "a misspelt backend key is recognised": (
        """
        chat:
          a:
            bakend: echo
        """,
        ["models.yaml:3:5: chat.a.bakend: unknown key 'bakend'; did you mean 'backend'? (one of echo, mlx-lm)"],
    ),
    "a missing backend lists the backends": (
        """
        chat:
          a: {aliases: [b]}
        """,
        ["models.yaml:2:3: chat.a.backend: is missing: say which backend answers (one of echo, mlx-lm)"],
    ),
    "an unknown backend lists the backends": (
        """
        chat:
          a: {backend: mlxlm}
        """,
        ["models.yaml:2:16: chat.a.backend: unknown backend 'mlxlm'; did you mean 'mlx-lm'? (known: echo, mlx-lm)"],
    ),
    "a backend that is not text": (
        "chat: {a: {backend: [echo]}}",
        ["models.yaml:1:21: chat.a.backend: should be one of echo, mlx-lm; found a list"],
    ),
    "an unknown key of a mapped voice": (
        "speech: {a: {backend: echo, voices: {x: {voice: y, speeed: 2}}}}",
        [
            "models.yaml:1:52: speech.a.voices.x.speeed: unknown key 'speeed'; did you mean 'speed'? "
            "(known: voice, speed, ref_audio, ref_text, instruct_text)"
        ],
    ),
    "an option of another backend says whose it is": (
        "speech: {a: {backend: espeak-ng, path: x}}",
        [
            "models.yaml:1:34: speech.a.path: the backend 'espeak-ng' has no 'path'; "
            "these have: auto, piper, mlx-audio, mlx-audio-plus"
        ],
    ),
    "a request parameter beside defaults is sent there": (
        "chat: {a: {backend: echo, temperature: 1}}",
        [
            "models.yaml:1:27: chat.a.temperature: unknown key 'temperature' here; "
            "request parameters go under defaults: write `defaults: {temperature: ...}`"
        ],
    ),
    "a missing path says what a path is": (
        """
        chat:
          a:
            backend: mlx-lm
        """,
        [
            "models.yaml:2:3: chat.a.path: is missing, and the backend 'mlx-lm' needs it: "
            "A folder, a Hugging Face repository (owner/name), or demo (the included model)."
        ],
    ),
    "a number where text is wanted is shown as it was written": (
        "chat: {a: {backend: echo, description: 1.10}}",
        [
            'models.yaml:1:40: chat.a.description: should be text; found the number 1.10: put it in quotes, "1.10"',
        ],
    ),
    "text where a number is wanted": (
        "chat: {a: {backend: echo, defaults: {temperature: '1', seed: 1.5}}}",
        [
            "models.yaml:1:51: chat.a.defaults.temperature: should be a number; found the text '1'",
            "models.yaml:1:62: chat.a.defaults.seed: should be a whole number; found the number 1.5",
        ],
    ),
    "a number out of range": (
        "chat: {a: {backend: echo, defaults: {temperature: 2.5, top_p: 0, max_tokens: -1}}}",
        [
            "models.yaml:1:51: chat.a.defaults.temperature: should be at most 2; found the number 2.5",
            "models.yaml:1:63: chat.a.defaults.top_p: should be more than 0; found the number 0",
            "models.yaml:1:78: chat.a.defaults.max_tokens: should be at least 1; found the number -1",
        ],
    ),
    "yes is text and no boolean": (
        "chat: {a: {backend: echo, preload: yes}}",
        ["models.yaml:1:36: chat.a.preload: should be true or false; found the text 'yes'"],
    ),
    "a choice that does not exist": (
        "chat: {a: {backend: echo, swap: hot}}",
        ["models.yaml:1:33: chat.a.swap: should be 'warm' or 'cold'; found the text 'hot'"],
    ),
    "a union names everything it takes": (
        "chat: {a: {backend: echo, defaults: {stop: 5}}}",
        ['models.yaml:1:44: chat.a.defaults.stop: should be text or a list; found the number 5: put it in quotes, "5"'],
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
            'models.yaml:6:9: chat.a.aliases.1: should be text; found the number 4: put it in quotes, "4"',
            "models.yaml:8:14: chat.a.defaults.stop.0: should be text that is not empty; found the text ''",
        ],
    ),
    "a duration that is none": (
        "server: {keep_alive: soon}",
        [
            "models.yaml:1:22: server.keep_alive: should be a duration such as 30s, 15m, 2h, 0 (at once) "
            "or \"forever\"; found the text 'soon'"
        ],
    ),
    "endless draining": (
        "server: {drain_seconds: .inf}",
        ["models.yaml:1:25: server.drain_seconds: should be a finite number; found the number .inf"],
    ),
    "a section that is a list": ("chat: [a]", ["models.yaml:1:7: chat: should be a mapping; found a list"]),
    "an entry that is text": (
        "chat: {a: mlx-lm}",
        ["models.yaml:1:11: chat.a: should be a mapping; found the text 'mlx-lm'"],
    ),
    "an entry with nothing in it": (
        "chat:\n  a:\n",
        ["models.yaml:2:3: chat.a: is empty; say at least its backend, or remove the line"],
    ),
    "an unknown section": (
        "chats: {}",
        ["models.yaml:1:1: chats: unknown key 'chats'; did you mean 'chat'? (known: server, echo, chat, speech)"],
    ),
    "an id with a blank at its end": (
        'chat: {"a ": {backend: echo}}',
        [
            "models.yaml:1:8: chat.a : a model's id should be text on one line that neither begins nor ends with a "
            "blank; found 'a '"
        ],
    ),
    "an id in both sections": (
        """
        chat:
          a: {backend: echo}
        speech:
          a: {backend: echo}
        """,
        ["models.yaml:4:3: speech.a: the name 'a' is already taken by chat.a at models.yaml:2:3; choose another"],
    ),
    "an alias that is another entry's id or alias": (
        """
        chat:
          a: {backend: echo, aliases: [b, c]}
          b: {backend: echo, aliases: [c]}
        """,
        [
            "models.yaml:2:32: chat.a.aliases.0: the name 'b' is already taken by chat.b at models.yaml:3:3; "
            "choose another",
            "models.yaml:3:32: chat.b.aliases.0: the name 'c' is already taken by chat.a.aliases.1 at "
            "models.yaml:2:35; choose another",
        ],
    ),
    "a duplicate key names both places": (
        """
        chat:
          a: {backend: echo}
          a: {backend: echo}
        """,
        ["models.yaml:3:3: chat.a: the key 'a' is here a second time; the first is at line 2, column 3: remove one"],
    ),
    "a key that is a number": (
        "chat: {4: {backend: echo}}",
        ['models.yaml:1:8: chat: a key should be text; found the number 4: put it in quotes, "4"'],
    ),
    "a tag": (
        "chat: {a: {backend: !!python/name:os.system echo}}",
        ["models.yaml:1:21: chat.a.backend: tags are not supported here; found !!python/name:os.system: remove it"],
    ),
    "an alias without an anchor": (
        "chat: *all",
        ["models.yaml:1:7: chat: there is no anchor &all before this alias; write the value itself"],
    ),
    "an alias inside what it stands for": (
        "chat: &all {a: *all}",
        ["models.yaml:1:16: chat.a: the alias *all is inside what it stands for; write the value itself"],
    ),
    "a path that leads nowhere": (
        "chat: {a: {backend: mlx-lm, path: nowhere}}",
        [
            "models.yaml:1:35: chat.a.path: 'nowhere' is neither a folder ({folder}/nowhere does not exist) "
            "nor a Hugging Face repository (owner/name)"
        ],
    ),
    "a control character": (
        'chat: {a: {backend: "ec\\0ho"}}',
        ["models.yaml:1:21: chat.a.backend: holds a control character (U+0000); remove it"],
    ),
    "an empty file": ("# nothing\n", ["models.yaml: is empty; write {} if it should say nothing"]),
    "a file that says null": ("~", ["models.yaml:1:1: is empty; write {} if it should say nothing"]),
    "a list at the top": (
        "- a",
        ["models.yaml:1:1: should be keys such as chat: and speech:; found a list"],
    ),
    "two documents": (
        "chat: {}\n---\nchat: {}\n",
        ["models.yaml:2:1: a second document begins here (---); a manifest is one document: remove the line"],
    ),
}

SYNTAX = {
    "a tab": ("chat:\n\ta: 1\n", "2:1: not valid YAML: found a tab; YAML is indented with blanks only"),
    "a wrong indentation": (
        "chat:\n  a: 1\n b: 2\n",
        "3:2: not valid YAML: this does not line up with what is above: "
        "begin it in the same column as its neighbours, indented with blanks",
    ),
    "an open list": (
        "a: [1, 2\nb: 3\n",
        "2:2: not valid YAML: the list that begins at line 1, column 4 is not closed before this: add a ',' or its ']'",
    ),
    "an open mapping": (
        "a: {x: 1\nb: 3\n",
        "2:2: not valid YAML: the mapping that begins at line 1, column 4 is not closed before this: "
        "add a ',' or its '}'",
    ),
    "an open quote": ("a: 'x\nb: 1\n", "1:4: not valid YAML: this quote is never closed; add the closing quote"),
    "a quote inside quotes": (
        "a: 'it's'\n",
        "1:8: not valid YAML: found 's' where the value should have ended; "
        "put text that holds quotes or brackets in quotes",
    ),
    "a key without a colon": (
        "a: 1\nb\n",
        "2:1: not valid YAML: a key with no ':' after it; write `key: value`",
    ),
    "a colon in text": (
        "a: b: c\n",
        "1:5: not valid YAML: there cannot be a ':' here: check how this line and the one before are indented, "
        "put a blank after each ':' that follows a key, and put text that holds ': ' in quotes",
    ),
    "a reserved character": ("a: @x\n", "1:4: not valid YAML: a value cannot begin with '@'; put the text in quotes"),
    "a closing bracket alone": ("a: }\n", "1:4: not valid YAML: found '}' where a value should be"),
}

BYTES = {
    "bytes that are no UTF-8": (
        b"chat:\n  a: \xff\xfe\n",
        "2:6: is not UTF-8 text: found the byte 0xff; save the file as UTF-8",
    ),
    "a control character in the file": (
        b"a: 1\r\nb: \x07",
        "2:4: holds a control character (U+0007) that YAML does not allow; remove it",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_manifest_is_explained(name, problems_of, folder):
    text, expected = CASES[name]

    assert problems_of(textwrap.dedent(text).lstrip("\n")) == [
        line.replace("{folder}", str(folder)) for line in expected
    ]


@pytest.mark.parametrize("name", SYNTAX)
def test_a_syntax_error_is_explained_in_plain_words(name, problems_of):
    text, expected = SYNTAX[name]

    assert problems_of(text) == [f"models.yaml:{expected}"]


@pytest.mark.parametrize("name", BYTES)
def test_a_file_that_is_no_text_is_explained(name, folder):
    data, expected = BYTES[name]
    (folder / "models.yaml").write_bytes(data)

    with pytest.raises(ManifestError) as caught:
        read(ManifestSource())

    assert str(caught.value) == f"models.yaml:{expected}"


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

    assert line == "models.yaml:5:10: more than 20,000 values up to here, counting what aliases repeat; shorten it"


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
    assert problems_of(None) == [
        "models.yaml: does not exist in the current folder; `localapi init` writes one, with a model that comes along. "
        "Or give another file with --manifest, or set CHAT_MODEL_PATH, AUDIO_MODEL_PATH or ECHO_MODE=1"
    ]


def test_a_home_that_does_not_exist_is_a_problem_of_the_path(problems_of):
    (line,) = problems_of("chat: {a: {backend: mlx-lm, path: ~nobody-of-this-name/x}}")

    assert line.startswith("models.yaml:1:35: chat.a.path: ")
