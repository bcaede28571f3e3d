"""Command line: one file per command, `group`, which finds them, and `main`, the program `localapi`."""

from localapi.cli.group import cli, main

__all__ = ["cli", "main"]
