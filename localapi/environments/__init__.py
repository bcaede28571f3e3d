"""Separate environments for backends whose packages conflict with the server's.

mlx-audio and mlx-audio-plus install the same module, and mlx-audio-plus needs an mlx-lm that the chat engine cannot
use. So each has its own environment, made by uv from a pinned list in this package, and workers run in it. This room
knows lists, folders and uv, but no models. `python -m localapi.environments NAME` builds an environment, like `localapi
install`.
"""

from localapi.environments.building import find_uv, install
from localapi.environments.pinned import NAMES, Environment

__all__ = ["NAMES", "Environment", "find_uv", "install"]
