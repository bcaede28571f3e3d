"""Code that runs inside a worker: the child process in which one loaded model lives.

A worker imports the standard library, msgspec, numpy and its one engine: no Quart, no pydantic, nothing of the server.
"""
