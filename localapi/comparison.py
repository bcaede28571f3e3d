"""What a running server would do if it read a manifest: asked over HTTP, told in one line."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from localapi.client import Server
from localapi.errors import NoServer, Refused
from localapi.manifest import Manifest, fingerprint
from localapi.reload import Diff

SECONDS: Final = 2.0


def compare(manifest: Manifest, server: Server) -> str:
    """Added, changed, updated and removed entries against what the server serves; or that it cannot be asked."""
    at = server.address
    if not server.is_there():
        return f"valid; no server runs on {at} to compare with"
    try:
        models = {model["id"]: model for model in server.get("/status", seconds=SECONDS)["models"]}
        changes = diff(manifest, models)
    except Refused as error:
        if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return (
                f"valid; the server on {at} tells what it serves only with a key that has the admin right: "
                "put it into the variable LOCALAPI_API_KEY"
            )
        return f"valid; what runs on {at} is not localapi, so there is nothing to compare with"
    except (NoServer, KeyError, TypeError):
        return f"valid; what runs on {at} is not localapi, so there is nothing to compare with"
    return f"valid; the server on {at} would change: {changes}" if changes else f"valid; the server on {at} serves this"


def diff(manifest: Manifest, models: dict[str, Any]) -> Diff:
    """What a server with these models, as `/status` tells them by their ids, would do with the manifest."""
    both = [entry for entry in manifest.entries.values() if entry.id in models]
    changed = tuple(e.id for e in both if models[e.id]["identity"] != fingerprint(e.identity))
    return Diff(
        added=tuple(name for name in manifest.entries if name not in models),
        changed=changed,
        updated=tuple(e.id for e in both if e.id not in changed and models[e.id]["serving"] != fingerprint(e.serving)),
        removed=tuple(name for name in models if name not in manifest.entries),
    )
