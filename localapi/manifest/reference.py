"""The manifest reference, docs/manifest.md, made from the classes that check manifests and from their JSON Schema."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter

from localapi.backends.options import Duration, EntryOptions, MemorySize, ReplicaLimits
from localapi.backends.place import ClusterOptions, Place
from localapi.kinds import KINDS, Kind
from localapi.manifest.description import duration
from localapi.manifest.keys import KeyOptions
from localapi.manifest.server_options import CaptureOptions, ResponsesOptions, ServerOptions, TopLevel, TraceOptions

COMMAND: Final = "uv run localapi schema --markdown > docs/manifest.md"

_INTRODUCTION: Final = f"""\
# Every option of the manifest

<!-- Made by `{COMMAND}`.
Edit the descriptions beside the options, in localapi/backends and localapi/manifest. -->

To look up an option of `models.yaml` or of a profile, go to its section. For a complete file, see
[the manifest by example](models-yaml.md); for anchors, environment variables and several files, see
[writing a manifest](writing-manifests.md). Unknown keys are errors, and `null` is the same as omitting an option.
`uv run localapi check` shows every value and its source.

- *on change*: what a change does to a loaded model. *in place*: requests are not affected. *reloads*: see `swap`.
- A *duration* is `30s`, `15m`, `2h`, `1d`, a number of seconds, `0` (at once) or `forever`. An *amount of memory* is
  `512MB`, `8GB`, `75%` (of the machine's memory) or a number of bytes.
- File paths are relative to the folder of the file that names them.
"""
_OF_ALL: Final[Mapping[type[BaseModel], str]] = {
    ServerOptions: "server",
    KeyOptions: "server.api_keys.NAME",
    ClusterOptions: "server.cluster",
    CaptureOptions: "server.capture",
    TraceOptions: "server.traces",
    ResponsesOptions: "server.responses",
    Place: "place",
    ReplicaLimits: "replicas",
}
"""Headings of classes that have their own section."""
_ROW: Final = "| {} | {} | {} | {} | {} | {} |"
_HEAD: Final = [_ROW.format("option", "value", "default", "on change", "description", "example"), "|---" * 6 + "|"]

Schema = Mapping[str, Any]
_DURATION: Final = TypeAdapter(Duration).json_schema()["anyOf"]
_MEMORY: Final = TypeAdapter(MemorySize).json_schema()["anyOf"]
_EXACT: Final = 2**53
"""Bounds beyond this come only from the wire format, and are not shown."""


def markdown() -> str:
    """Return the whole page."""
    parts = [
        _INTRODUCTION,
        _section(ServerOptions, "Options of the server as a whole. All of them change in place."),
        _section(KeyOptions, "See [docs/security.md](security.md#api-keys). Either `env` or `file` is required."),
        _section(ClusterOptions, "See [docs/machines.md](machines.md#a-ray-cluster)."),
        _section(CaptureOptions, "See [docs/observing.md](observing.md#captures)."),
        _section(TraceOptions, "See [docs/observing.md](observing.md#traces)."),
        _section(ResponsesOptions, "See [docs/responses.md](responses.md#stored-responses)."),
        _titled("include", _table(TopLevel, ["include"], hot={"include"})),
        _titled("echo", _table(TopLevel, ["echo"], hot=set())),
        _titled("Every model", _table(EntryOptions, EntryOptions.model_fields, hot=EntryOptions.model_fields)),
        _section(ReplicaLimits, "See [docs/machines.md](machines.md#replicas)."),
        _section(
            Place, "Resources that a worker needs from `server.cluster`; `{}` means any node with a free core.", hot=()
        ),
        *(part for kind in KINDS.values() for part in _of_kind(kind)),
    ]
    return "\n".join(parts)


def _nested() -> dict[type[BaseModel], str]:
    """Return the headings of classes that have their own section."""
    return {**_OF_ALL, **{model: title for kind in KINDS.values() for model, title in kind.nested.items()}}


def _section(model: type[BaseModel], text: str = "", *, hot: Iterable[str] | None = None) -> str:
    """Return the section of a nested class. All of its options change in place, unless `hot` lists those that do."""
    fields = model.model_fields
    return _titled(_nested()[model], _table(model, fields, hot=fields if hot is None else hot), text=text)


def _of_kind(kind: Kind) -> Iterable[str]:
    options = kind.options
    own = [name for name in options.model_fields if name not in EntryOptions.model_fields]
    yield _titled(f"Every {kind} model", _table(options, own, hot=own))
    yield from (_section(model) for model in kind.nested)
    told: dict[str, str] = {}
    for name, backend in kind.backends.items():
        description = str(backend.model_fields["backend"].description)
        added = [field for field in backend.model_fields if field not in options.model_fields and field != "backend"]
        rows = _table(backend, added, hot=_in_place(backend, name)) if added else ["It has no additional options."]
        same = told.setdefault("\n".join(rows), name)
        if added and same != name:
            rows = [f"It has the same options as [{same}](#{_anchor(f'{kind}: {same}')})."]
        yield _titled(f"{kind}: {name}", rows, text=f"`backend: {name}`. {description}")


def _in_place(backend: type[EntryOptions], name: str) -> set[str]:
    """Return the options that are not part of the identity, and therefore change in place."""
    required = {field: "" for field, info in backend.model_fields.items() if info.is_required()}
    with warnings.catch_warnings(action="ignore"):  # a required option may be something other than text
        identity = backend.model_construct(None, **{**required, "backend": name}).identity().options
    return set(backend.model_fields) - set(identity) - {"backend"}


def _anchor(title: str) -> str:
    """Return the anchor of a section, for links to it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _titled(title: str, rows: list[str], *, text: str = "") -> str:
    return "\n".join([f"## {title}", "", *([text, ""] if text else []), *rows, ""])


def _table(model: type[BaseModel], names: Iterable[str], *, hot: Iterable[str]) -> list[str]:
    schema = model.model_json_schema(mode="validation")
    rows = []
    for name in names:
        part, field = schema["properties"][name], model.model_fields[name]
        default = "required" if field.is_required() else f"`{_default(part)}`"
        example = f"`{name}: {_one_line(example_of(model, name))}`"
        change = "in place" if name in hot else "reloads"
        value = _value(part, schema.get("$defs", {}))
        cells = (f"`{name}`", value, default, change, str(field.description), example)
        rows.append(_ROW.format(*(cell.replace("|", "\\|") for cell in cells)))
    return [*_HEAD, *rows]


def example_of(model: type[BaseModel], name: str) -> Any:
    """Return the example of a field, or a value that differs from its default."""
    field = model.model_fields[name]
    if field.examples:
        return field.examples[0]
    if field.annotation is bool:
        return not field.default
    literals = [part for part in (field.annotation, *get_args(field.annotation)) if get_origin(part) is Literal]
    return next(choice for part in literals for choice in get_args(part) if choice != field.default)


def _value(schema: Schema, definitions: Schema) -> str:
    """Describe the possible values."""
    if "anyOf" in schema:
        return _either(schema["anyOf"], definitions)
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "properties" in schema:
        title = next(
            title for model, title in _nested().items() if schema["properties"].keys() == model.model_fields.keys()
        )
        return f"[options](#{_anchor(title)})"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema["type"] == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        items = _value(schema["items"], definitions)
        return f"list of {'strings' if items == 'string' else items}{most}"
    if schema["type"] == "object":
        each = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
        return f"map of names to {_value(each, definitions)}" if isinstance(each, dict) else "map"
    return _scalar(schema)


def _either(parts: list[Schema], definitions: Schema) -> str:
    if all(part in parts for part in _DURATION):
        return "duration"
    if parts == _MEMORY:
        return "amount of memory"
    return " or ".join(dict.fromkeys(_value(part, definitions) for part in parts if part != {"type": "null"}))


def _scalar(schema: Schema) -> str:
    if schema["type"] == "string":
        least = schema.get("minLength", 1)
        return "string" if least == 1 else f"string of at least {least} characters"
    if schema["type"] == "boolean":
        return "`true`, `false`"
    return f"{schema['type']}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if high is not None and high >= _EXACT:
        return ""
    if above is not None:
        return f" above {above:g}" + ("" if high is None else f", at most {high:g}")
    if low is None:
        return ""
    return f", {low:g} or more" if high is None else f", {low:g} to {high:g}"


def _default(schema: Schema) -> str:
    """Return the default as YAML, without nulls inside of it."""
    usual = schema.get("default")
    if isinstance(usual, dict):
        usual = {key: part for key, part in usual.items() if part is not None}
    if isinstance(usual, float):
        is_duration = all(part in schema.get("anyOf", []) for part in _DURATION)
        return duration(usual) if is_duration else f"{usual:g}"
    return _one_line(usual)


def _one_line(value: object) -> str:
    """Return a value as YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()
