"""A client of a running server, for the command line: requests and events, and the measuring of its speed.

Knows HTTP and how the server tells errors; refuses to know what is asked, and what comes of it.
"""

from localapi.client.server import Event, Server

__all__ = ["Event", "Server"]
