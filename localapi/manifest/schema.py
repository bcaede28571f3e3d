"""The JSON Schema of models.yaml and of profiles, made from the same classes that check them.

One schema serves both, so that editors need one line. It also allows what only a profile may contain: an entry without
a backend (it changes an entry of the manifest), and null (it removes a value).
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from localapi.kinds import KINDS
from localapi.manifest.scalars import REFERENCE
from localapi.manifest.server_options import EXTENSION, document

Schema = dict[str, Any]

_REF = "#/$defs/{model}"
_NULL: Schema = {"type": "null"}
_REFERENCE: Schema = {"$ref": "#/$defs/Reference"}
_OUTSIDE = ("description", "default", "examples")
"""Keywords that editors look for outside alternatives."""


def json_schema() -> Schema:
    """Return a JSON Schema of draft 2020-12."""
    models = [document(), *(options for kind in KINDS.values() for options in kind.backends.values())]
    _, generated = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    definitions: Schema = {name: _readable(schema) for name, schema in generated["$defs"].items()}
    top = definitions.pop("Document")
    for section in KINDS:
        change = f"{section.capitalize()}Change"
        definitions[change] = _change(section, definitions)
        top["properties"][section] = _section(section, change, top["properties"][section]["description"])
    definitions = {name: _with_references(schema) for name, schema in definitions.items()}
    definitions["Reference"] = {
        "type": "string",
        "description": "A variable from the environment or .env, optionally with a default: ${env.NAME:-default}.",
        "pattern": REFERENCE,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Manifest of localapi (models.yaml) and its profiles",
        **_with_references(top),
        "patternProperties": {f"^{EXTENSION}": {"description": "Ignored; can hold anchors."}},
        "description": "Declares the models of the server, which applies changes of this file while it runs.",
        "$defs": dict(sorted(definitions.items())),
    }


def _with_references(schema: Schema) -> Schema:
    """Return a schema that accepts references to variables wherever it accepts scalars but not every string."""
    found = dict(schema)
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _with_references(part) for name, part in found[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _with_references(found[key])
    parts = found.get("anyOf", [found])
    if not any(_refuses_references(part) for part in parts) or any(_takes_any_text(part) for part in parts):
        return found
    outside = {name: part for name, part in found.items() if name in _OUTSIDE}
    inside = {name: part for name, part in found.items() if name not in _OUTSIDE}
    return {**outside, "anyOf": [*inside.get("anyOf", [inside]), _REFERENCE]}


def _refuses_references(schema: Schema) -> bool:
    """Return whether a schema accepts scalars, other than null and constants, but not references."""
    return "enum" in schema or "pattern" in schema or schema.get("type") in ("integer", "number", "boolean")


def _takes_any_text(schema: Schema) -> bool:
    return schema.get("type") == "string" and not {"enum", "const", "pattern"} & schema.keys()


def _section(section: str, change: str, description: str) -> Schema:
    """Return the schema of entries by id: options of a backend, changes of a profile, or null."""
    names = [options.__name__ for options in KINDS[section].backends.values()]
    entry: Schema = {"anyOf": [*({"$ref": _REF.format(model=name)} for name in (*names, change)), _NULL]}
    return {
        "description": description,
        "type": ["object", "null"],
        "propertyNames": {"minLength": 1, "maxLength": 200},
        "additionalProperties": entry,
    }


def _change(section: str, definitions: Schema) -> Schema:
    """Return the schema of a profile's changes to an entry: any option of any backend."""
    properties: Schema = {}
    for options in KINDS[section].backends.values():
        for key, schema in definitions[options.__name__]["properties"].items():
            properties.setdefault(key, schema)
    del properties["backend"]
    return {
        "type": "object",
        "description": "In a profile: changes to an entry of the manifest.",
        "properties": {key: _or_null(schema) for key, schema in properties.items()},
        "additionalProperties": False,
    }


def _readable(schema: Schema) -> Schema:
    """Return a model's schema for users.

    It has no generated titles, and only the first paragraph of a docstring; null is allowed if it means the default.
    """
    properties: Schema = {}
    for key, item in schema.get("properties", {}).items():
        part = {name: value for name, value in item.items() if name != "title" and (name, value) != ("default", None)}
        properties[key] = part if key in schema.get("required", []) else _or_null(part)
    shown = {key: part for key, part in schema.items() if key != "title"}
    if "description" in shown:
        shown["description"] = shown["description"].partition("\n\n")[0]
    return {**shown, "properties": properties}


def _or_null(schema: Schema) -> Schema:
    """Return a schema that also allows null, with the description outside, where editors look for it."""
    if _NULL in schema.get("anyOf", []):
        return schema
    outside = {name: part for name, part in schema.items() if name in _OUTSIDE}
    inside = {name: part for name, part in schema.items() if name not in _OUTSIDE}
    return {**outside, "anyOf": [*inside.get("anyOf", [inside]), _NULL]}
