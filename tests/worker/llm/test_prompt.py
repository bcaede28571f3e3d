"""Messages to a prompt, with templates of several tempers."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mlx_lm.chat_templates import deepseek_v32
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from localapi.backends.parameters import objection
from localapi.worker.llm.prompt import PromptRefused, PromptWriter
from localapi.worker.protocol import Chat, FunctionCall, FunctionTool, ImagePart, Message

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROLES = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
ROLES += "{% if add_generation_prompt %}[assistant]{% endif %}"
KNOWS_DEVELOPER = "{# developer #}" + ROLES
CALLS = "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments.city }}{% endfor %}{% endfor %}."
NEEDS_ALL = "{% for t in tools %}{{ t.function.name ~ ':' ~ t.function.description.strip() ~ ':' }}"
NEEDS_ALL += "{{ t.function.parameters.type }}{% endfor %}"
STRICT = "{{ raise_exception('Conversation roles must alternate') }}"


@pytest.fixture
def written(tiny_model: Path) -> Any:
    """Writes messages with a template, and gives the prompt as text."""
    tokenizer = load_tokenizer(tiny_model)

    def write(template: str | None, *messages: Message) -> str:
        tokenizer._tokenizer.chat_template = template
        tokenizer.has_chat_template = template is not None
        return str(tokenizer.decode(PromptWriter(tokenizer).tokens(Chat(id=1, messages=list(messages)))))

    return write


def said(role: str, content: Any, **more: Any) -> Message:
    return Message(role, content, **more)


def test_the_template_writes_the_prompt_and_opens_the_answer(written: Any) -> None:
    assert written(ROLES, said("system", "Be kind."), said("user", "Hi")) == "[system]Be kind.[user]Hi[assistant]"


def test_what_the_libraries_take_themselves_is_no_variable_of_a_template() -> None:
    takers: list[Callable[..., Any]] = [
        PreTrainedTokenizerBase.apply_chat_template,
        ProcessorMixin.apply_chat_template,
        render_jinja_template,
        TokenizerWrapper.apply_chat_template,
        deepseek_v32.apply_chat_template,
    ]
    taken = {name for taker in takers for name in inspect.signature(taker).parameters}
    assert {"chat_template", "tokenize", "return_dict", "self"} < taken
    assert {name for name in taken if not objection("chat_template_kwargs", {name: "x"})} == set()
    assert objection("chat_template_kwargs", {"enable_thinking": False, "custom": 1}) == ""


def test_no_content_is_empty_content(written: Any) -> None:
    assert written(ROLES, said("assistant", "")) == "[assistant][assistant]"


@pytest.mark.parametrize(("template", "role"), [(ROLES, "system"), (KNOWS_DEVELOPER, "developer")])
def test_a_developer_is_the_system_unless_the_template_names_developers(written: Any, template: str, role: str) -> None:
    assert written(template, said("developer", "Be brief.")) == f"[{role}]Be brief.[assistant]"


def test_a_tool_calls_arguments_are_an_object_in_the_template(written: Any) -> None:
    calls = [FunctionCall("1", "weather", '{"city": "Paris"}')]
    assert written(CALLS, said("assistant", "", calls=calls)) == "Paris."


@pytest.mark.parametrize(
    ("function", "text"),
    [({}, "f::object"), ({"description": None, "parameters": None}, "f::object"), ({"description": "d"}, "f:d:object")],
)
def test_a_tool_may_leave_out_what_the_template_reads(tiny_model: Path, function: Any, text: str) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer._tokenizer.chat_template = NEEDS_ALL
    request = Chat(id=1, messages=[said("user", "Hi")], tools=[FunctionTool("f", **function)])
    assert str(tokenizer.decode(PromptWriter(tokenizer).tokens(request))) == text


def test_a_template_that_fails_for_what_schemas_may_leave_out_gets_it(tiny_model: Path) -> None:
    template = "{% for name, field in tools[0].function.parameters.properties.items() %}"
    template += "{{ name }}:{{ field.title + field.description }}:"
    template += (
        "{% if field.type is string %}{{ field.type }} {% else %}{{ raise_exception('type') }}{% endif %}{% endfor %}"
    )
    tokenizer = load_tokenizer(tiny_model)
    tokenizer._tokenizer.chat_template = template
    optional = {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "B"}
    schema = {"type": "object", "properties": {"a": {"type": ["integer", "null"], "title": "A"}, "b": optional}}
    request = Chat(id=1, messages=[said("user", "Hi")], tools=[FunctionTool("f", parameters=schema)])
    assert str(tokenizer.decode(PromptWriter(tokenizer).tokens(request))) == "a:A:integer b:B:string "


def test_what_the_template_says_is_the_error(written: Any) -> None:
    with pytest.raises(PromptRefused, match="Conversation roles must alternate"):
        written(STRICT, said("user", "Hi"))


@pytest.mark.parametrize(
    ("messages", "says"),
    [([], "at least one"), ([said("user", "\ud800")], "surrogate"), ([said("user", [ImagePart("data:,")])], "[user]")],
)
def test_odd_messages_are_written_or_refused(written: Any, messages: list[Message], says: str) -> None:
    try:
        text = written(ROLES, *messages)
    except PromptRefused as error:
        text = str(error)
    assert says in text


def test_without_a_template_each_message_is_a_line_with_its_role(written: Any) -> None:
    prompt = written(None, said("system", "Be kind."), said("user", "Hi"), said("assistant", "Ho"), said("user", "So?"))
    assert prompt == "Be kind.\nUser: Hi\nAssistant: Ho\nUser: So?\nAssistant:"


def test_without_a_template_the_next_users_line_ends_the_answer() -> None:
    plain: Any = SimpleNamespace(
        has_chat_template=False, chat_template=None, has_tool_calling=False, has_thinking=False
    )
    assert PromptWriter(plain).stop == ("\nUser:",)


FIRST_ONLY = "{% for m in messages %}{% if m.role != 'system' or loop.first %}[{{ m.role }}]{{ m.content }}{% endif %}"
FIRST_ONLY += "{% endfor %}"
USERS_ONLY = "{% for m in messages %}{% if m.role == 'user' %}[user]{{ m.content }}{% endif %}{% endfor %}"
SILENT = "Nothing of what was said."


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (ROLES, "[user]Hi[system]Be kind.[user]Ho[assistant]"),
        (FIRST_ONLY, "[system]Be kind.[user]Hi[user]Ho"),
        (USERS_ONLY, "[user]Be kind.\n\nHi[user]Ho"),
    ],
)
def test_a_late_system_message_is_written_or_merged(written: Any, template: str, prompt: str) -> None:
    assert written(template, said("user", "Hi"), said("system", "Be kind."), said("user", "Ho")) == prompt


ALTERNATING = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
ALTERNATING += "{% elif (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}"
ALTERNATING += "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def test_messages_of_one_role_are_joined_if_roles_must_alternate(written: Any) -> None:
    turns = [said("user", "Hi"), said("user", "Ho"), said("assistant", "Yes?"), said("assistant", "Now?")]
    assert written(ALTERNATING, *turns) == "[user]Hi\n\nHo[assistant]Yes?\n\nNow?"
    assert written(ALTERNATING, said("system", "Be kind."), *turns[:2]) == "[user]Be kind.\n\nHi\n\nHo"


def test_several_calls_come_one_by_one_if_the_template_writes_only_the_first(written: Any) -> None:
    template = "{% for m in messages %}{% if m.tool_calls %}<{{ m.tool_calls[0].function.name }}>{% endif %}"
    template += "{{ m.content }}{% endfor %}"
    calls = [FunctionCall("1", "look", "{}"), FunctionCall("2", "hear", "{}")]
    results = [said("tool", "A bang.", call_id="2"), said("tool", "A dog.", call_id="1")]

    prompt = written(
        template, said("user", "Hi."), said("assistant", "Well.", calls=calls), *results, said("user", "?")
    )

    assert prompt == "Hi.<look>Well.A dog.<hear>A bang.?"


def test_a_prefilled_answer_may_begin_with_its_thinking(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{% set c = m.content.split('</think>')[-1].strip() %}"
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ c }}.{% endfor %}"
    )
    answer = said("assistant", "<think>\nHm.\n</think>\n\nWell")
    request = Chat(id=1, messages=[said("user", "Hi"), answer], continues=True)
    prompt = str(tokenizer.decode(PromptWriter(tokenizer).tokens(request)))
    assert prompt == "[user]Hi.[assistant]<think>\nHm.\n</think>\n\nWell"


def test_an_instruction_that_no_form_keeps_is_refused_and_named(written: Any) -> None:
    with pytest.raises(PromptRefused, match="role system"):
        written(SILENT, said("system", "Be kind."), said("user", "Hi"))


def test_a_result_carries_the_name_of_its_function(written: Any) -> None:
    template = "{% for m in messages %}{% if m.role == 'tool' %}{{ m.name }}: {{ m.content }}{% endif %}{% endfor %}."
    calls = [FunctionCall("1", "weather", "{}")]
    assert written(template, said("assistant", "", calls=calls), said("tool", "5", call_id="1")) == "weather: 5."


def test_tools_are_shown_under_the_name_that_the_template_reads(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer._tokenizer.chat_template = ROLES + "{% for tool in xml_tools %}{{ tool.function.name }}{% endfor %}"
    writer = PromptWriter(tokenizer)
    asked = Chat(id=1, messages=[said("user", "Hi")], tools=[FunctionTool(name="look_up", parameters={})])
    assert writer.shows_tools
    assert str(tokenizer.decode(writer.tokens(asked))).endswith("look_up")


def test_a_template_that_needs_a_list_of_tools_gets_an_empty_one(written: Any) -> None:
    assert written("{% for tool in tools %}{{ tool }}{% endfor %}" + ROLES, said("user", "Hi")) == "[user]Hi[assistant]"


CALL = FunctionCall("1", "look", "{}")
USERS = "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% endif %}{% endfor %}"
NAMES = "{% for m in messages %}{% for c in m.tool_calls %}<{{ c.function.name }}>{% endfor %}{% endfor %}"


def test_results_that_the_template_leaves_out_are_in_the_words_of_the_user(written: Any) -> None:
    prompt = written(
        USERS + NAMES, said("user", "Hi"), said("assistant", "", calls=[CALL]), said("tool", "5", call_id="1")
    )

    assert prompt == "[Hi][Result of look:\n5]<look>"


def test_a_result_without_its_call_is_in_the_words_of_the_user_if_the_template_refuses_it(written: Any) -> None:
    template = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no call') }}{% endif %}{% endfor %}"

    assert written(template + USERS, said("user", "Hi"), said("tool", "5", call_id="9")) == (
        "[Hi][Result of the function:\n5]"
    )


def test_results_that_no_form_keeps_are_refused(written: Any) -> None:
    with pytest.raises(PromptRefused, match="tool results"):
        written(NAMES, said("assistant", "", calls=[CALL]), said("tool", "5", call_id="1"))


def test_text_beside_several_calls_and_all_calls_are_kept_by_a_template_for_one_call_without_text(written: Any) -> None:
    template = (
        "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one') }}"
        "{% endif %}<{{ m.tool_calls[0].function.name }}>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    calls = [CALL, FunctionCall("2", "hear", "{}")]
    results = [said("tool", "A dog.", call_id="1"), said("tool", "A bang.", call_id="2")]

    assert written(template, said("assistant", "Well.", calls=calls), *results) == "Well.<look>A dog.<hear>A bang."


def test_tools_that_the_template_shows_in_a_system_message_alone_are_shown_without_one(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.content }}{% if m.role == 'system' %}{% for t in tools %}{{ t.function.name }}"
        "{% endfor %}{% endif %}]{% endfor %}"
    )
    request = Chat(id=1, messages=[said("user", "Hi")], tools=[FunctionTool("look")])

    assert PromptWriter(tokenizer).text(request) == "[look][Hi]"


@pytest.mark.parametrize(
    ("template", "effort", "prompt"),
    [
        ("{{ thinking_mode }}", "none", "disabled"),
        ("{{ thinking_mode }}", "high", "enabled"),
        ("{% if '/no_think' in messages[0].content %}off{% else %}on{% endif %}", "none", "off"),
        ("{% if '/no_think' in messages[0].content %}off{% else %}on{% endif %}", "high", "on"),
    ],
)
def test_an_effort_turns_thinking_on_and_off_in_the_way_that_the_template_reads(
    tiny_model: Path, template: str, effort: str, prompt: str
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer._tokenizer.chat_template = template
    writer = PromptWriter(tokenizer)

    assert writer.thinking["thinking_switch"]
    request = Chat(id=1, messages=[said("user", "Hi")], template_options={"reasoning_effort": effort})
    assert writer.text(request) == prompt


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{ messages[0].reasoning }}", "Hm."),
        ("{{ messages[0].thinking }}", "Hm."),
        ("{{ messages[0].reasoning_content }}", "Hm."),
        ("{% for b in messages[0].content %}{% if b['type'] == 'thinking' %}{{ b['thinking'] }}{% else %}"
         "{{ b['text'] }}{% endif %}{% endfor %}", "Hm.Yes"),
    ],
)  # fmt: skip
def test_earlier_reasoning_is_where_the_template_reads_it(written: Any, template: str, prompt: str) -> None:
    assert written(template, said("assistant", "Yes", reasoning="Hm.")) == prompt
