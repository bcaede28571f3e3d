"""Run the program `localapi` by `python -m localapi`."""

from localapi.cli import main

main()
