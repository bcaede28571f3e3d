"""APIs over HTTP: one file per endpoint, with its request, its handler and its reply."""
