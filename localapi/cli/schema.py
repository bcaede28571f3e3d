"""`localapi schema`: what editors check models.yaml with."""

from __future__ import annotations

import json

import click

from localapi.manifest import json_schema


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of models.yaml and of profiles."""
    click.echo(json.dumps(json_schema(), indent=2))
