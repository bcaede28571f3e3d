"""What a running server would do if it read a manifest: asked over HTTP, told in one line."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from localapi.manifest import Manifest, fingerprint
from localapi.reload import Diff

TIMEOUT_SECONDS = 2


def compare(manifest: Manifest, host: str, port: int, headers: Mapping[str, str]) -> str:
    """Added, changed, updated and removed entries against the server on that address; or that none runs there."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(f"{address}/status", headers=dict(headers))  # noqa: S310  # the scheme is ours
        with opener.open(request, timeout=TIMEOUT_SECONDS) as reply:
            models = {model["id"]: model for model in json.load(reply)["models"]}
    except urllib.error.HTTPError as error:
        if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return (
                f"valid; the server on {address} tells what it serves only with a key that has the admin right: "
                "put it into the variable LOCALAPI_API_KEY"
            )
        return f"valid; what runs on {address} is not localapi, so there is nothing to compare with"
    except (http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"valid; what runs on {address} is not localapi, so there is nothing to compare with"
    except OSError:
        return f"valid; no server runs on {address} to compare with"
    changes = _diff(manifest, models)
    return (
        f"valid; the server on {address} would change: {changes}"
        if changes
        else f"valid; the server on {address} serves this"
    )


def _diff(manifest: Manifest, models: dict[str, Any]) -> Diff:
    both = [entry for entry in manifest.entries.values() if entry.id in models]
    changed = tuple(e.id for e in both if models[e.id]["identity"] != fingerprint(e.identity))
    return Diff(
        added=tuple(name for name in manifest.entries if name not in models),
        changed=changed,
        updated=tuple(e.id for e in both if e.id not in changed and models[e.id]["serving"] != fingerprint(e.serving)),
        removed=tuple(name for name in models if name not in manifest.entries),
    )
