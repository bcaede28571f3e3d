"""A client of a running server for the command line: requests, events, and benchmarks.

Knows HTTP and the form of errors, but not the content of requests and replies.
"""

from localapi.client.server import Event, Server

__all__ = ["Event", "Server"]
