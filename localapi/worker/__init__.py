"""Code that runs inside a worker: the child process that hosts one loaded model.

A worker imports the standard library, msgspec, numpy and its engine, but not Quart, pydantic or anything of the server.
"""
