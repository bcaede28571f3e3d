"""Tools of a response: functions, custom tools, namespaces of both, and those that OpenAI runs.

Engines know only functions. A tool in a namespace is offered as a function whose name contains both names; in its call,
they are separate, as the client sent them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from localapi.api.neutral_request import unknown_tool
from localapi.api.openai.chat_request import MAX_TOOLS, FunctionName
from localapi.api.openai.custom_tools import TEXT_ARGUMENT
from localapi.api.openai.generation_request import MAX_NAME, BodyObject
from localapi.api.openai.responses.items import in_namespace
from localapi.backends.parameters import FreeObject
from localapi.worker.protocol import FunctionTool


class FunctionDefinition(BodyObject):
    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: FreeObject | None = None
    strict: bool | None = None


class TextInputFormat(BodyObject):
    type: str


class CustomDefinition(BodyObject):
    """Tool whose argument is text."""

    type: Literal["custom"]
    name: FunctionName
    description: str | None = None
    format: TextInputFormat | None = None


class HostedTool(BodyObject):
    """Tool that OpenAI runs, or of an unknown type."""

    type: str


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("function", "custom", "namespace") else "hosted"


def _kind_in_namespace(value: Any) -> str:
    kind = _kind(value)
    return "hosted" if kind == "namespace" else kind


_TOOLS = (
    Annotated[FunctionDefinition, Tag("function")]
    | Annotated[CustomDefinition, Tag("custom")]
    | Annotated[HostedTool, Tag("hosted")]
)


class NamespaceDefinition(BodyObject):
    """Tools with a common name, such as those of one MCP server."""

    type: Literal["namespace"]
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    description: str | None = None
    tools: Annotated[
        list[Annotated[_TOOLS, Discriminator(_kind_in_namespace)]], Field(default_factory=list, max_length=MAX_TOOLS)
    ]


Tool = Annotated[_TOOLS | Annotated[NamespaceDefinition, Tag("namespace")], Discriminator(_kind)]


class NamedTool(BodyObject):
    type: Literal["function", "custom"]
    name: str


class AllowedTools(BodyObject):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[FreeObject]


@dataclass(frozen=True)
class Offered:
    """Tool that the client runs, in the engine's form and in the client's."""

    function: FunctionTool
    name: str
    namespace: str | None
    custom: bool


def offered(tools: Sequence[Tool]) -> tuple[list[Offered], list[str]]:
    """Return the tools that the client runs, and the names of the others, which have no effect."""
    found: list[Offered] = []
    unread: list[str] = []
    for tool, namespace, where in _each(tools):
        if isinstance(tool, HostedTool):
            unread.append(f"{where} ({tool.type})")
            continue
        description = tool.description
        if namespace is not None and description is None:
            description = namespace.description
        space = namespace.name if namespace is not None else None
        name = in_namespace(tool.name, space)
        if isinstance(tool, FunctionDefinition):
            function = FunctionTool(name, description, tool.parameters, tool.strict)
        else:
            function = FunctionTool(name, description, TEXT_ARGUMENT)
            if tool.format is not None and tool.format.type != "text":
                unread.append(f"{where}.format")
        found.append(Offered(function, tool.name, space, isinstance(tool, CustomDefinition)))
    return found, unread


def _each(
    tools: Sequence[Tool],
) -> Iterator[tuple[FunctionDefinition | CustomDefinition | HostedTool, NamespaceDefinition | None, str]]:
    """Yield each tool with its namespace and its place in the request."""
    for at, tool in enumerate(tools):
        if isinstance(tool, NamespaceDefinition):
            for inner, each in enumerate(tool.tools):
                yield each, tool, f"tools[{at}].tools[{inner}]"
        else:
            yield tool, None, f"tools[{at}]"


def named(tools: Sequence[Offered], name: str) -> str:
    """Return the engine's name of the tool that a choice names, if needed without its namespace."""
    engine_names = [tool.function.name for tool in tools]
    inner = [tool.function.name for tool in tools if tool.name == name]
    return inner[0] if name not in engine_names and len(inner) == 1 else name


def allowed(tools: Sequence[Offered], choice: AllowedTools) -> list[Offered]:
    """Return the tools that may be called now. Raise InvalidRequest for one that does not exist."""
    wanted: set[str] = set()
    for each in choice.tools:
        name = str(each.get("name"))
        if each.get("type") == "namespace":
            inside = [tool.function.name for tool in tools if tool.namespace == name]
            if not inside:
                raise unknown_tool(name, sorted({tool.namespace for tool in tools if tool.namespace is not None}))
            wanted.update(inside)
        elif each.get("type") in ("function", "custom"):
            name = named(tools, name)
            names = [tool.function.name for tool in tools]
            if name not in names:
                raise unknown_tool(name, names)
            wanted.add(name)
    return [tool for tool in tools if tool.function.name in wanted]
