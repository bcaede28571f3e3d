"""Values of the manifest that messages never show, because they may be secrets."""

from __future__ import annotations

from typing import get_origin

from localapi.backends.peer import PeerOptions
from localapi.kinds import KINDS
from localapi.manifest.origin import KeyPath

_PLACES = ("env", "file")
"""Keys that tell where a secret is; their values may be shown."""


def is_hidden(path: KeyPath) -> bool:
    """Return whether the value at a path of keys may be a secret.

    This is so for everything below `server.api_keys`, and for options of an entry or a peer that are declared with
    `repr=False`.
    """
    if path[:2] == ("server", "api_keys"):
        return True
    match path:
        case (str(section), _, str(option), *inside) if section in KINDS or section == "peers":
            owners = [PeerOptions] if section == "peers" else KINDS[section].backends.values()
            for options in owners:
                field = options.model_fields.get(option)
                if field is not None and not field.repr:
                    places = inside[1:] if get_origin(field.annotation) is dict else inside
                    return not (places and places[0] in _PLACES)
    return False
