"""`localapi schema`: what editors check models.yaml with, and what people look up in it."""

from __future__ import annotations

import json

import click

from localapi.manifest import json_schema, markdown


@click.command("schema")
@click.option("--markdown", "as_page", is_flag=True, help="Print the reference of all options as Markdown.")
def command(*, as_page: bool) -> None:
    """Print the JSON Schema of models.yaml and of profiles."""
    click.echo(markdown() if as_page else json.dumps(json_schema(), indent=2), nl=not as_page)
