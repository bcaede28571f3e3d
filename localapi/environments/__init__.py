"""Environments of their own, for backends whose packages cannot live beside the server's.

mlx-audio and mlx-audio-plus install the same module, and mlx-audio-plus needs an mlx-lm that the chat engine cannot
use. So each has an environment, made by uv from a pinned list that comes with this package; a worker runs in it. Knows
lists, folders and uv; nothing of models. `python -m localapi.environments NAME` builds one, as `localapi install` does.
"""

from localapi.environments.building import find_uv, install
from localapi.environments.pinned import NAMES, Environment

__all__ = ["NAMES", "Environment", "find_uv", "install"]
