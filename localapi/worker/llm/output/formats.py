"""Formats of tool calls: one row for each way in which models write them.

A row defines how calls are read and how a forced call is spelled. `recognition` chooses the row for a model. Rows with
the name of one of mlx-lm's parsers take the marks around a section from that parser, which also reads what they leave
open; the others have their own marks.
"""

# ruff: noqa: RUF001  # DeepSeek writes its marks with full-width bars
from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from localapi.worker.llm.output.call_ids import ANY, CallIds, NameAndNumber, NineCharacters, TenCharacters
from localapi.worker.llm.output.channels import FUNCTIONARY, HARMONY, SOLAR, Channels

GENERIC: Final = "generic"
"""The format that a system message explains to a model whose template has no tools."""


@dataclass(frozen=True)
class Tags:
    """The tags around a call and its arguments, whose values are plain text."""

    call: re.Pattern[str]
    """The start of a call, with its `name`."""
    call_end: str
    """The end of a call; empty if the section's end also ends it."""
    argument: re.Pattern[str]
    """The start of an argument, with its `key`."""
    argument_end: str
    newlines: Literal["any", "both", "none"] = "both"
    """Newlines at the ends of a value that belong to the format: any, only one at both ends together, or none."""
    whole_section: bool = False
    """True if the marks around the section are the call's own tags."""


@dataclass(frozen=True)
class Spelling:
    """Spelling of forced calls. `{name}` stands for the function's name, `{id}` for the call's id."""

    head: str
    """The text before the arguments of a call."""
    tail: str = ""
    """The text after them."""
    start: str = ""
    """The text before the first call."""
    end: str = ""
    """The text after the last call."""
    between: str | None = ""
    """Text between two calls; None if a response contains only one."""
    call_id: str = ""
    """Pattern of an id."""
    argument: tuple[str, str] | None = None
    """Text around the value of an argument, with `{key}`. None if the arguments are one value."""
    nested: bool = False
    """True if an object's members and a list's items, named `item`, are written as arguments are."""
    arguments: Literal["json", "python", "gemma"] = "json"
    """The syntax of arguments that are one value."""


@dataclass(frozen=True)
class CallFormat:
    """The syntax of one family's calls."""

    marks: tuple[str, str] | None = None
    """Marks around a section. None for those of mlx-lm's parser with this name."""
    spelling: Spelling | None = None
    """Spelling of forced calls; None if calls cannot be forced."""
    head: re.Pattern[str] | None = None
    """The text between a section's start, or another call, and the JSON of a call's arguments, with its `name`."""
    tail: str = ""
    """The text after the arguments of such a call, if it is not the section's end."""
    keyed_by_name: bool = False
    """True if a call is an object with its name as the only key."""
    opens: str = ""
    """Characters that start a call if they start the response, without any mark."""
    channels: Channels | None = None
    """The messages that an answer is made of."""
    ids: CallIds = ANY
    """Ids of calls that the template requires."""
    ends_turn: tuple[str, ...] = ()
    """Tokens that end a response, if the tokenizer has them."""
    is_json: bool = False
    """True if calls are objects with a name and arguments."""
    tags: Tags | None = None
    string_mark: str = ""
    """The mark around strings, if nothing else is marked."""
    bare: tuple[str, str] = ("", "")
    """Marks around one call if they cannot be mistaken for text, because models forget the marks around the section."""
    inner_marks: tuple[str, ...] = ()
    """Marks that mlx-lm's parser reads inside a section and that may be special tokens."""
    border: re.Pattern[str] | None = None
    """Border at which calls are split, if mlx-lm's parser mixes up or drops calls when one section contains several."""
    unread: str = ""
    """Only argument that mlx-lm's parser returns for text that is not a call."""
    is_python: bool = False
    """True if calls are a list of Python calls."""
    element_mark: str = ""
    """The mark before every tag if arguments are nested elements."""


def _named(tag: str, group: str) -> re.Pattern[str]:
    """Return the pattern of `<tag name="...">`."""
    return re.compile(rf"<{tag}\s+name\s*=\s*(?P<{group}>\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>]+)[^<>]*>")


def _keyed(prefix: str, *, unread: str = "") -> CallFormat:
    """Return the format of `name<arg_key>key</arg_key><arg_value>value</arg_value>`."""
    key, key_end, value, value_end = (f"<{mark}>" for mark in (
        f"{prefix}arg_key", f"/{prefix}arg_key", f"{prefix}arg_value", f"/{prefix}arg_value"
    ))  # fmt: skip
    tags = Tags(
        call=re.compile(rf"(?P<name>[^\s<>{{}}\[\]\"]+)\s*(?={key}|\Z)"),
        call_end="",
        argument=re.compile(rf"{key}\s*(?P<key>[^<>]+?)\s*{key_end}(?:\\n|\s)*{value}"),
        argument_end=value_end,
    )
    return CallFormat(tags=tags, inner_marks=(key, key_end, value, value_end), unread=unread)


_M3: Final = "]<]minimax[>["
"""MiniMax M3's mark before every tag."""
_GIGACHAT3: Final = "<|message_sep|>\n\nfunction call<|role_sep|>\n"
_JSON: Final = '{"name": "{name}", "arguments": '
_DSML: Final = Tags(
    call=_named("｜DSML｜invoke", "name"),
    call_end="</｜DSML｜invoke>",
    argument=_named("｜DSML｜parameter", "key"),
    argument_end="</｜DSML｜parameter>",
    newlines="none",
)
_CODER: Final = Tags(
    call=re.compile(r"<function=(?P<name>[^\s<>]+)>"),
    call_end="</function>",
    argument=re.compile(r"<parameter=(?P<key>[^\s<>]+)>"),
    argument_end="</parameter>",
    newlines="any",
)


def _json_list(start: str, end: str, *, name: str = "name", arguments: str = "arguments") -> CallFormat:
    """Return the format of a JSON list of calls between two marks."""
    head = f'{{"{name}": "{{name}}", "{arguments}": '
    spelling = Spelling(head=head, tail="}", start=f"{start}[", end=f"]{end}", between=", ")
    return CallFormat(marks=(start, end), is_json=True, spelling=spelling)


def _dsml(section: str) -> CallFormat:
    """Return the format of DeepSeek's DSML, which differs in the name of a section."""
    start, end = f"<｜DSML｜{section}>", f"</｜DSML｜{section}>"
    return CallFormat(
        marks=(start, end),
        tags=_DSML,
        inner_marks=("｜DSML｜",),
        spelling=Spelling(
            head='<｜DSML｜invoke name="{name}">\n',
            tail="</｜DSML｜invoke>\n",
            start=f"{start}\n",
            end=end,
            argument=('<｜DSML｜parameter name="{key}" string="{text}">', "</｜DSML｜parameter>\n"),
        ),
    )


def _invoked(start: str, end: str) -> CallFormat:
    """Return the format of `<invoke name="f">` and `<parameter name="a">` between two marks."""
    return CallFormat(
        marks=(start, end),
        tags=Tags(
            call=_named("invoke", "name"),
            call_end="</invoke>",
            argument=_named("parameter", "key"),
            argument_end="</parameter>",
        ),
        spelling=Spelling(
            head='<invoke name="{name}">\n',
            tail="</invoke>\n",
            start=f"{start}\n",
            end=end,
            argument=('<parameter name="{key}">', "</parameter>\n"),
        ),
    )


def _mistral(spelling: Spelling) -> CallFormat:
    """Return one of Mistral's formats. Each model reads and writes its own, and all are read alike."""
    return CallFormat(
        marks=("[TOOL_CALLS]", ""),
        is_json=True,
        head=re.compile(r"(?P<name>[^\s\[\]{}]+)\s*(?:\[CALL_ID\]\s*(?P<id>[^\s\[\]{}]*)\s*)?(?:\[ARGS\])?"),
        inner_marks=("[ARGS]", "[CALL_ID]"),
        spelling=spelling,
        ids=NineCharacters(),
    )


FORMATS: Final = {
    "json_tools": CallFormat(
        is_json=True,
        spelling=Spelling(head=f"<tool_call>\n{_JSON}", tail="}\n</tool_call>", between="\n"),
    ),
    "qwen3_coder": CallFormat(
        tags=_CODER,
        bare=("<function=", "</function>"),
        spelling=Spelling(
            head="<tool_call>\n<function={name}>\n",
            tail="</function>\n</tool_call>",
            between="\n",
            argument=("<parameter={key}>\n", "\n</parameter>\n"),
        ),
    ),
    "seed": CallFormat(
        marks=("<seed:tool_call>", "</seed:tool_call>"),
        tags=_CODER,
        bare=("<function=", "</function>"),
        spelling=Spelling(
            head="<seed:tool_call>\n<function={name}>\n",
            tail="</function>\n</seed:tool_call>",
            between="\n",
            argument=("<parameter={key}>", "</parameter>\n"),
        ),
    ),
    "minimax_m2": replace(
        _invoked("<minimax:tool_call>", "</minimax:tool_call>"), marks=None, bare=("<invoke name=", "</invoke>")
    ),
    "muse_spark": CallFormat(
        tags=Tags(
            call=_named("atem:invoke", "name"),
            call_end="</atem:invoke>",
            argument=_named("atem:parameter", "key"),
            argument_end="</atem:parameter>",
            newlines="none",
        ),
        bare=("<atem:invoke name=", "</atem:invoke>"),
        spelling=Spelling(
            head='<atem:invoke name="{name}">\n',
            tail="</atem:invoke>\n",
            start="<atem:function_calls>\n",
            end="</atem:function_calls>",
            argument=('<atem:parameter name="{key}">', "</atem:parameter>\n"),
        ),
    ),
    "minicpm5": CallFormat(
        tags=Tags(
            call=_named("function", "name"),
            call_end="</function>",
            argument=_named("param", "key"),
            argument_end="</param>",
            whole_section=True,
        ),
        spelling=Spelling(
            head='<function name="{name}">',
            tail="</function>",
            between="\n",
            argument=('<param name="{key}">', "</param>"),
        ),
    ),
    "glm47": replace(
        _keyed("", unread="raw"),  # Laguna's, too
        spelling=Spelling(
            head="<tool_call>{name}",
            tail="</tool_call>",
            argument=("<arg_key>{key}</arg_key><arg_value>", "</arg_value>"),
        ),
    ),
    "glm45": replace(
        _keyed("", unread="raw"),
        marks=("<tool_call>", "</tool_call>"),
        spelling=Spelling(
            head="<tool_call>{name}\n",
            tail="</tool_call>",
            between="\n",
            argument=("<arg_key>{key}</arg_key>\n<arg_value>", "</arg_value>\n"),
        ),
    ),
    "longcat": replace(
        _keyed("longcat_"),
        spelling=Spelling(
            head="<longcat_tool_call>{name}\n",
            tail="</longcat_tool_call>",
            between="\n",
            argument=("<longcat_arg_key>{key}</longcat_arg_key>\n<longcat_arg_value>", "</longcat_arg_value>\n"),
        ),
    ),
    "function_gemma": CallFormat(
        string_mark="<escape>",
        spelling=Spelling(head="<start_function_call>call:{name}", tail="<end_function_call>", arguments="gemma"),
    ),
    "gemma4": CallFormat(
        string_mark='<|"|>',
        spelling=Spelling(head="<|tool_call>call:{name}", tail="<tool_call|>", arguments="gemma"),
    ),
    "kimi_k2": CallFormat(
        bare=("<|tool_call_begin|>", "<|tool_call_end|>"),
        inner_marks=("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        border=re.compile(r"(?<=<\|tool_call_end\|>)\s*(?=<\|tool_call_begin\|>)"),
        spelling=Spelling(
            head="<|tool_call_begin|>functions.{name}:{id}<|tool_call_argument_begin|>",
            tail="<|tool_call_end|>",
            start="<|tool_calls_section_begin|>",
            end="<|tool_calls_section_end|>",
            call_id="[0-9]{1,3}",
        ),
        ids=NameAndNumber(),
    ),
    "kimi_k3": CallFormat(
        inner_marks=("<|open|>", "<|close|>", "<|sep|>"),
        border=re.compile(r"(?<=<\|close\|>call<\|sep\|>)\s*(?=<\|open\|>call)"),
        spelling=Spelling(
            head='<|open|>call tool="{name}" index="{id}"<|sep|><|open|>json type="object"<|sep|>',
            tail="<|close|>json<|sep|><|close|>call<|sep|>",
            start="<|open|>tools<|sep|>",
            end="<|close|>tools<|sep|>",
            call_id="[0-9]{1,2}",
        ),
    ),
    "mistral": _mistral(
        Spelling(
            head=_JSON,
            tail=', "id": "{id}"}',
            start="[TOOL_CALLS][",
            end="]",
            between=", ",
            call_id="[a-zA-Z0-9]{9}",
        )
    ),
    "mistral_args": _mistral(Spelling(head="[TOOL_CALLS]{name}[ARGS]")),
    "mistral_call_id": _mistral(Spelling(head="[TOOL_CALLS]{name}[CALL_ID]{id}[ARGS]", call_id="[a-zA-Z0-9]{9}")),
    "minimax_m3": CallFormat(
        marks=(f"{_M3}<tool_call>", f"{_M3}</tool_call>"),
        element_mark=_M3,
        inner_marks=(_M3,),
        border=re.compile(rf"(?<={re.escape(_M3)}</invoke>)\s*(?={re.escape(_M3)}<invoke)"),
        spelling=Spelling(
            head=f'{_M3}<invoke name="{{name}}">',
            tail=f"{_M3}</invoke>\n",
            start=f"{_M3}<tool_call>\n",
            end=f"{_M3}</tool_call>",
            argument=(f"{_M3}<{{key}}>", f"{_M3}</{{key}}>"),
            nested=True,
        ),
    ),
    "solar": CallFormat(
        marks=("<|tool_calls|>", "<|calls|>"),
        channels=SOLAR,
        head=re.compile(
            r"<\|tool_call:begin\|>(?P<id>[^\s<>]*)<\|tool_call:name\|>(?P<name>[^\s<>]+)<\|tool_call:args\|>\s*"
        ),
        tail="<|tool_call:end|>",
        inner_marks=("<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"),
        spelling=Spelling(
            head="<|tool_call:begin|>{id}<|tool_call:name|>{name}<|tool_call:args|>",
            tail="<|tool_call:end|>",
            start="<|tool_calls|>",
            call_id="[a-z0-9]{10}",
        ),
        ids=TenCharacters(),
        ends_turn=("<|calls|>",),
    ),
    "functionary": CallFormat(
        marks=(">>>", ""),
        channels=FUNCTIONARY,
        spelling=Spelling(head="{name}\n", between=">>>"),
        ends_turn=("<|eot_id|>",),
    ),
    "function_json": CallFormat(
        marks=("<function=", "</function>"),
        head=re.compile(r"(?P<name>[^\s<>]+)>\s*"),
        spelling=Spelling(head="<function={name}>", tail="</function>"),
        ends_turn=("<|eot_id|>", "<|eom_id|>"),
    ),
    "python_list": CallFormat(
        marks=("", ""),
        is_python=True,
        opens="[",
        spelling=Spelling(head="{name}(", tail=")", start="[", end="]", between=", ", arguments="python"),
    ),
    "pythonic": CallFormat(
        is_python=True,
        spelling=Spelling(
            head="{name}(",
            tail=")",
            start="<|tool_call_start|>[",
            end="]<|tool_call_end|>",
            between=", ",
            arguments="python",
        ),
    ),
    "harmony": CallFormat(
        marks=("to=functions.", ""),
        channels=HARMONY,
        spelling=Spelling(head="<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>", between=None),
        ends_turn=("<|return|>", "<|call|>"),
    ),
    "llama3": CallFormat(
        marks=("<|python_tag|>", ""),
        is_json=True,
        opens="{",
        spelling=Spelling(head='{"name": "{name}", "parameters": ', tail="}", between=None),
        ends_turn=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    ),
    "granite": replace(_json_list("<|tool_call|>", ""), ends_turn=("<|end_of_text|>",)),
    "phi4": _json_list("<|tool_call|>", "<|/tool_call|>"),
    "nemotron": _json_list("<TOOLCALL>", "</TOOLCALL>"),
    "functools": _json_list("functools", ""),
    "json_list": replace(_json_list("", ""), opens="[{"),
    "internlm2": CallFormat(
        marks=("<|action_start|><|plugin|>", "<|action_end|>"),
        is_json=True,
        spelling=Spelling(
            head='<|action_start|><|plugin|>\n{"name": "{name}", "parameters": ', tail="}<|action_end|>", between="\n"
        ),
    ),
    "granite_20b": CallFormat(
        marks=("<function_call>", ""),
        is_json=True,
        spelling=Spelling(head=f"<function_call> {_JSON}", tail="}"),
    ),
    "gigachat3": CallFormat(
        marks=(_GIGACHAT3, ""),
        is_json=True,
        spelling=Spelling(head=f"{_GIGACHAT3}{_JSON}", tail="}", between=None),
    ),
    "step3": CallFormat(
        marks=("<｜tool_calls_begin｜>", "<｜tool_calls_end｜>"),
        tags=Tags(
            call=re.compile(
                r"<｜tool_call_begin｜>\s*function\s*<｜tool_sep｜>\s*" + _named("steptml:invoke", "name").pattern
            ),
            call_end="</steptml:invoke><｜tool_call_end｜>",
            argument=_named("steptml:parameter", "key"),
            argument_end="</steptml:parameter>",
            newlines="none",
        ),
        inner_marks=("<｜tool_call_begin｜>", "<｜tool_sep｜>", "<｜tool_call_end｜>"),
        spelling=Spelling(
            head='<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name="{name}">',
            tail="</steptml:invoke><｜tool_call_end｜>",
            start="<｜tool_calls_begin｜>",
            end="<｜tool_calls_end｜>",
            argument=('<steptml:parameter name="{key}">', "</steptml:parameter>"),
        ),
    ),
    "dots": _invoked("<dots_function_call>", "</dots_function_call>"),
    "tool_calls": _json_list("<tool_calls>", "</tool_calls>"),
    "gigachat": CallFormat(
        marks=("<|function_call|>", ""),
        is_json=True,
        spelling=Spelling(head=f"<|function_call|>{_JSON}", tail="}", between=None),
        ends_turn=("<|message_sep|>",),
    ),
    "hunyuan3": CallFormat(
        marks=("<tool_calls:opensource>", "</tool_calls:opensource>"),
        tags=Tags(
            call=re.compile(r"<tool_call:opensource>(?P<name>[^\s<>]+)<tool_sep:opensource>"),
            call_end="</tool_call:opensource>",
            argument=re.compile(
                r"<arg_key:opensource>\s*(?P<key>[^<>]+?)\s*</arg_key:opensource>\s*<arg_value:opensource>"
            ),
            argument_end="</arg_value:opensource>",
            newlines="none",
        ),
        inner_marks=tuple(
            f"<{mark}:opensource>"
            for mark in ("tool_call", "/tool_call", "tool_sep", "arg_key", "/arg_key", "arg_value", "/arg_value")
        ),
        spelling=Spelling(
            head="<tool_call:opensource>{name}<tool_sep:opensource>\n",
            tail="</tool_call:opensource>\n",
            start="<tool_calls:opensource>\n",
            end="</tool_calls:opensource>",
            argument=(
                "<arg_key:opensource>{key}</arg_key:opensource>\n<arg_value:opensource>",
                "</arg_value:opensource>\n",
            ),
        ),
    ),
    "command_r": _json_list("Action:\n```json\n", "```", name="tool_name", arguments="parameters"),
    "command_r7b": CallFormat(
        marks=("<|START_ACTION|>", "<|END_ACTION|>"),
        is_json=True,
        spelling=Spelling(
            head='{"tool_call_id": "{id}", "tool_name": "{name}", "parameters": ',
            tail="}",
            start="<|START_ACTION|>[\n    ",
            end="\n]<|END_ACTION|>",
            between=",\n    ",
            call_id="[0-9]{1,3}",
        ),
        ends_turn=("<|END_OF_TURN_TOKEN|>",),
    ),
    "apertus": CallFormat(
        marks=("<|tools_prefix|>", "<|tools_suffix|>"),
        is_json=True,
        keyed_by_name=True,
        spelling=Spelling(
            head='{"{name}": ', tail="}", start="<|tools_prefix|>[", end="]<|tools_suffix|>", between=", "
        ),
    ),
    "deepseek_v3": CallFormat(
        marks=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        head=re.compile(r"<｜tool▁call▁begin｜>[a-z]*<｜tool▁sep｜>(?P<name>[^\n<>`]+)\s*```(?:json)?\s*"),
        tail="```<｜tool▁call▁end｜>",
        inner_marks=("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
        spelling=Spelling(
            head="<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n",
            tail="\n```<｜tool▁call▁end｜>",
            start="<｜tool▁calls▁begin｜>",
            end="<｜tool▁calls▁end｜>",
            between="\n",
        ),
    ),
    "deepseek_v31": CallFormat(
        marks=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        head=re.compile(r"<｜tool▁call▁begin｜>(?P<name>[^\n<>`]+)<｜tool▁sep｜>"),
        tail="<｜tool▁call▁end｜>",
        inner_marks=("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
        spelling=Spelling(
            head="<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>",
            tail="<｜tool▁call▁end｜>",
            start="<｜tool▁calls▁begin｜>",
            end="<｜tool▁calls▁end｜>",
        ),
    ),
    "deepseek_v32": _dsml("function_calls"),
    "deepseek_v4": _dsml("tool_calls"),
    GENERIC: CallFormat(
        marks=("", ""),
        is_json=True,
        opens="{[",
        spelling=Spelling(head=_JSON, tail="}", start="[", end="]", between=", "),
    ),
}
