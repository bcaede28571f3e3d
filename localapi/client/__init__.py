"""Client for a running server, used by the command line: requests, events, and benchmarks.

It knows HTTP and the form of errors, but not the content of requests and replies.
"""

from localapi.client.server import Event, Server

__all__ = ["Event", "Server"]
