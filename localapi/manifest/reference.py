"""The manifest reference, docs/manifest.md, made from the classes that check manifests and from their JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel

from localapi.backends.options import EntryOptions
from localapi.kinds import KINDS, Kind
from localapi.manifest import wording
from localapi.manifest.document import TopLevel
from localapi.manifest.entries import ServerOptions
from localapi.manifest.keys import KeyOptions

COMMAND: Final = "uv run localapi schema --markdown > docs/manifest.md"

_INTRODUCTION: Final = f"""\
# Every option of the manifest

<!-- Made by `{COMMAND}`.
What it says stands beside the options, in localapi/backends and localapi/manifest. -->

`models.yaml` and profiles, option by option; [README](../README.md#the-manifest) shows a whole manifest. Unknown keys
are errors, and `null` is as if the option were left out. `uv run localapi check` shows every value and who said it.

- *a change*: what a save does to a loaded model. *in place*: requests notice nothing. *loads anew*: as `swap` says.
- A *duration* is `30s`, `15m`, `2h`, `1d`, a number of seconds, `0` (at once) or `forever`. An *amount of memory* is
  `512MB`, `8GB`, `75%` (of the machine's memory) or a number of bytes.
- Paths of files start from the folder of the file that names them.
"""
_OF_SERVER: Final[Mapping[type[BaseModel], str]] = {ServerOptions: "server", KeyOptions: "server.api_keys.NAME"}
"""Classes with a section of their own, and its heading."""
_ROW: Final = "| {} | {} | {} | {} | {} | {} |"
_HEAD: Final = [_ROW.format("option", "value", "default", "a change", "what it does", "example"), "|---" * 6 + "|"]


def markdown() -> str:
    """The whole page."""
    parts = [
        _INTRODUCTION,
        _section(ServerOptions, "What is not about one model. All of it changes in place."),
        _section(KeyOptions, "[docs/security.md](security.md#api-keys) has more. One of `env` and `file` is required."),
        _titled("echo", _table(TopLevel, ["echo"], hot=set())),
        _titled("Every model", _table(EntryOptions, EntryOptions.model_fields, hot=EntryOptions.model_fields)),
        *(part for kind in KINDS.values() for part in _of_kind(kind)),
    ]
    return "\n".join(parts)


def _nested() -> dict[type[BaseModel], str]:
    """Return the classes with a section of their own, and its heading."""
    return {**_OF_SERVER, **{model: title for kind in KINDS.values() for model, title in kind.nested.items()}}


def _section(model: type[BaseModel], text: str = "") -> str:
    """The section of a nested class; its owner changes in place, and so does all of it."""
    return _titled(_nested()[model], _table(model, model.model_fields, hot=model.model_fields), text=text)


def _of_kind(kind: Kind) -> Iterable[str]:
    options = kind.options
    own = [name for name in options.model_fields if name not in EntryOptions.model_fields]
    yield _titled(f"Every {kind} model", _table(options, own, hot=own))
    yield from (_section(model) for model in kind.nested)
    told: dict[str, str] = {}
    for name, backend in kind.backends.items():
        description = str(backend.model_fields["backend"].description)
        added = [field for field in backend.model_fields if field not in options.model_fields and field != "backend"]
        rows = _table(backend, added, hot=_in_place(backend, name)) if added else ["It has no options of its own."]
        same = told.setdefault("\n".join(rows), name)
        if added and same != name:
            rows = [f"Its options are those of [{same}](#{_anchor(f'{kind}: {same}')})."]
        yield _titled(f"{kind}: {name}", rows, text=f"`backend: {name}`. {description}")


def _in_place(backend: type[EntryOptions], name: str) -> set[str]:
    """The options that are no part of what is loaded, so that a save changes them in place."""
    required = {field: "" for field, info in backend.model_fields.items() if info.is_required()}
    identity = backend.model_construct(None, **{**required, "backend": name}).identity().options
    return set(backend.model_fields) - set(identity) - {"backend"}


def _anchor(title: str) -> str:
    """What links to a section name it by."""
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
        change = "in place" if name in hot else "loads anew"
        value = wording.value(part, schema.get("$defs", {}), _link_to)
        cells = (f"`{name}`", value, default, change, str(field.description), example)
        rows.append(_ROW.format(*(cell.replace("|", "\\|") for cell in cells)))
    return [*_HEAD, *rows]


def example_of(model: type[BaseModel], name: str) -> Any:
    """A value that somebody may want: the field's own example, or one that differs from the default."""
    field = model.model_fields[name]
    if field.examples:
        return field.examples[0]
    if field.annotation is bool:
        return not field.default
    choices = [value for part in _parts(field.annotation) for value in get_args(part)]
    return next(choice for choice in choices if choice != field.default)


def _parts(annotation: Any) -> list[Any]:
    """The Literals of an annotation."""
    union = (annotation, *get_args(annotation))
    return [part for part in union if getattr(part, "__origin__", None) is Literal]
