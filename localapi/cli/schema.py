"""`localapi schema`: the JSON Schema of models.yaml for editors, or the reference of its options for people."""

from __future__ import annotations

import json

import click

from localapi.manifest import json_schema, markdown


@click.command("schema")
@click.option("--markdown", "as_page", is_flag=True, help="Print the reference of all options as Markdown.")
def command(*, as_page: bool) -> None:
    """Print the JSON Schema of models.yaml and of profiles."""
    click.echo(markdown() if as_page else json.dumps(json_schema(), indent=2), nl=not as_page)
