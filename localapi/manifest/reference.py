"""The manifest reference, docs/manifest.md, made from the classes that check manifests and from their JSON Schema."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel

from localapi.backends.options import EntryOptions, ReplicaLimits
from localapi.backends.place import ClusterOptions, Place
from localapi.kinds import KINDS, Kind
from localapi.manifest import wording
from localapi.manifest.document import TopLevel
from localapi.manifest.entries import ServerOptions
from localapi.manifest.keys import KeyOptions

COMMAND: Final = "uv run localapi schema --markdown > docs/manifest.md"

_INTRODUCTION: Final = f"""\
# Every option of the manifest

<!-- Made by `{COMMAND}`.
Edit the descriptions beside the options, in localapi/backends and localapi/manifest. -->

Reference of all options in `models.yaml` and profiles; [README](../README.md#the-manifest) shows a whole manifest.
Unknown keys are errors, and `null` is the same as leaving an option out. `uv run localapi check` shows every value and
its source.

- *on change*: what a change does to a loaded model. *in place*: requests are not affected. *reloads*: see `swap`.
- A *duration* is `30s`, `15m`, `2h`, `1d`, a number of seconds, `0` (at once) or `forever`. An *amount of memory* is
  `512MB`, `8GB`, `75%` (of the machine's memory) or a number of bytes.
- File paths are relative to the folder of the file that names them.
"""
_OF_ALL: Final[Mapping[type[BaseModel], str]] = {
    ServerOptions: "server",
    KeyOptions: "server.api_keys.NAME",
    ClusterOptions: "server.cluster",
    Place: "place",
    ReplicaLimits: "replicas",
}
"""Headings of classes that have their own section."""
_ROW: Final = "| {} | {} | {} | {} | {} | {} |"
_HEAD: Final = [_ROW.format("option", "value", "default", "on change", "description", "example"), "|---" * 6 + "|"]


def markdown() -> str:
    """Return the whole page."""
    parts = [
        _INTRODUCTION,
        _section(ServerOptions, "Options of the server as a whole. All of them change in place."),
        _section(KeyOptions, "See [docs/security.md](security.md#api-keys). Either `env` or `file` is required."),
        _section(ClusterOptions, "See [docs/machines.md](machines.md#a-ray-cluster)."),
        _titled("echo", _table(TopLevel, ["echo"], hot=set())),
        _titled("Every model", _table(EntryOptions, EntryOptions.model_fields, hot=EntryOptions.model_fields)),
        _section(ReplicaLimits, "See [docs/machines.md](machines.md#replicas)."),
        _section(Place, "What a worker takes of `server.cluster`; `{}` is any node with a free core.", hot=()),
        *(part for kind in KINDS.values() for part in _of_kind(kind)),
    ]
    return "\n".join(parts)


def _nested() -> dict[type[BaseModel], str]:
    """Return the headings of classes that have their own section."""
    return {**_OF_ALL, **{model: title for kind in KINDS.values() for model, title in kind.nested.items()}}


def _section(model: type[BaseModel], text: str = "", *, hot: Iterable[str] | None = None) -> str:
    """Return the section of a nested class. All of its options change in place, unless `hot` says which do."""
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
    with warnings.catch_warnings(action="ignore"):  # a required option may be no text
        identity = backend.model_construct(None, **{**required, "backend": name}).identity().options
    return set(backend.model_fields) - set(identity) - {"backend"}


def _anchor(title: str) -> str:
    """Return the anchor of a section, for links to it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _link_to(options: frozenset[str]) -> str:
    title = next(title for model, title in _nested().items() if options == set(model.model_fields))
    return f"[options](#{_anchor(title)})"


def _titled(title: str, rows: list[str], *, text: str = "") -> str:
    return "\n".join([f"## {title}", "", *([text, ""] if text else []), *rows, ""])


def _table(model: type[BaseModel], names: Iterable[str], *, hot: Iterable[str]) -> list[str]:
    schema = model.model_json_schema(mode="validation")
    rows = []
    for name in names:
        part, field = schema["properties"][name], model.model_fields[name]
        default = "required" if field.is_required() else f"`{wording.default(part)}`"
        example = f"`{name}: {wording.one_line(example_of(model, name))}`"
        change = "in place" if name in hot else "reloads"
        value = wording.value(part, schema.get("$defs", {}), _link_to)
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
    choices = [value for part in _parts(field.annotation) for value in get_args(part)]
    return next(choice for choice in choices if choice != field.default)


def _parts(annotation: Any) -> list[Any]:
    """Return the Literals of an annotation."""
    union = (annotation, *get_args(annotation))
    return [part for part in union if getattr(part, "__origin__", None) is Literal]
