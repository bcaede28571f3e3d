"""A local model server that follows one file: OpenAI's API for chat and speech models on this machine.

Nothing is imported here: the workers import this package too, in environments that lack the server's packages.
"""

__version__ = "0.1.0"
