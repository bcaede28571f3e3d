"""`localapi doctor`: check what works on this machine, what is missing, and how to fix it."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Final

import click

from localapi.cli.options import manifest_option, profile_option, server_of, server_options, source_of
from localapi.cli.sound_output import PLAYERS
from localapi.cli.text_table import wrapped
from localapi.diagnosis import CHECKS, Finding, Subject, examine
from localapi.errors import ManifestError, Problem
from localapi.manifest import Manifest, read
from localapi.observability import log
from localapi.settings import Settings
from localapi.system.threads import within

READ_SECONDS: Final = 5.0
"""Time limit for reading the manifest, whose drive may not respond."""
SIGNS: Final = {"ok": "✓", "note": "!", "missing": "✗"}
_BEFORE: Final = 4
"""Characters of a line besides its topic and text."""
COLOURS: Final = {"ok": "green", "note": "yellow", "missing": "red"}


@click.command("doctor")
@manifest_option
@profile_option
@server_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def command(*, as_json: bool, **flags: Any) -> None:
    """Check what works on this machine, what is missing, and how to fix it.

    Nothing is changed. The exit status is 1 if something that the manifest needs is missing.
    """
    found = examine(_subject(Settings.read(**flags)), CHECKS)
    missing = sum(each.grade == "missing" for each in found)
    if as_json:
        click.echo(json.dumps({"ok": not missing, "findings": [dataclasses.asdict(each) for each in found]}, indent=2))
    else:
        _show(found, missing)
    sys.exit(1 if missing else 0)


def _subject(settings: Settings) -> Subject:
    manifest: Manifest | None = None
    problems: tuple[Problem, ...] = ()
    source = source_of(settings)
    try:
        manifest = within(READ_SECONDS, lambda: read(source))
    except ManifestError as error:
        problems = error.problems
    except TimeoutError:
        message = f"could not be read within {READ_SECONDS:g} s; is its drive connected?"
        problems = (Problem(str(source.manifest), message),)
    players = [player[0] for player in PLAYERS]
    return Subject(manifest, problems, server_of(settings), settings.port, players)


def _show(found: list[Finding], missing: int) -> None:
    colour = log.wants_colour(sys.stdout)
    width = max(len(each.topic) for each in found)
    for each in found:
        sign = click.style(SIGNS[each.grade], fg=COLOURS[each.grade], bold=True)
        says = wrapped(each.says, indent=width + _BEFORE)
        click.echo(f"{sign} {each.topic:<{width}}  {says}", color=colour)
        if each.mend and each.grade != "ok":
            click.echo(f"  {'':<{width}}  → {click.style(each.mend, bold=True)}", color=colour)
    click.echo()
    if missing:
        click.secho(f"missing, but needed by the manifest: {missing}", fg="red", color=colour)
    else:
        click.secho("nothing is missing", fg="green", color=colour)
