"""The JSON Schema of models.yaml and of profiles, made from the same classes that check them."""

from __future__ import annotations


def json_schema() -> dict[str, object]:
    """JSON Schema, draft 2020-12."""
    raise NotImplementedError
