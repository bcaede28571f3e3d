"""The offered tools in the forms that chat templates accept: some fail for what OpenAI's API lets clients omit."""

from __future__ import annotations

from typing import Any


def described(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the tool with all optional fields."""
    function = {name: value for name, value in tool.get("function", {}).items() if value is not None}
    return {**tool, "function": {"description": "", "parameters": {"type": "object", "properties": {}}, **function}}


def spelled_out(schema: Any, *, named: bool = False) -> Any:
    """Return a tool in which every argument has a description and types exclude null.

    Hermes' templates cannot write `["integer", "null"]`, and Command-R's need all fields. `named`: the value of
    `properties`, whose keys are names.
    """
    if isinstance(schema, list):
        return [spelled_out(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if named:
        # A schema may be true, which templates do not expect.
        open_ones = {name: {} if each is True else each for name, each in schema.items()}
        named_ones = {name: {"description": "", **each} for name, each in open_ones.items() if isinstance(each, dict)}
        return {name: spelled_out(each) for name, each in {**schema, **named_ones}.items()}
    plain = {key: spelled_out(value, named=key == "properties") for key, value in schema.items()}
    if isinstance(plain.get("type"), list):
        types = [each for each in plain["type"] if each != "null"]
        plain["type"] = types[0] if len(types) == 1 else types
    for key in ("anyOf", "oneOf"):
        options = plain.get(key)
        others = [each for each in options if each != {"type": "null"}] if isinstance(options, list) else []
        if len(others) == 1 and isinstance(others[0], dict):
            plain = {**others[0], **{name: value for name, value in plain.items() if name != key}}
    if plain.get("type") == "object":
        plain.setdefault("additionalProperties", {})
    return plain
