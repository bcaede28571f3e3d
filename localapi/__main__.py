"""`python -m localapi` is `localapi`."""

from localapi.cli import main

main()
