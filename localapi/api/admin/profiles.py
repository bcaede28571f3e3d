"""`GET /admin/profiles` and `POST /admin/profile`: show the profiles, or switch to another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct
from pydantic import BaseModel, ConfigDict
from quart import Response

from localapi.api.admin.attempt_status import AttemptReply, describe_attempt
from localapi.api.admin.manifest import edit_error_body
from localapi.api.admin.manifest_wire import InvalidReply
from localapi.api.dialect import ApiBlueprint
from localapi.api.operation import JSON, Operation, Operations
from localapi.errors import InvalidManifest, ManifestError, NotFound, shown
from localapi.http.body import name_ignored, parse, read_object
from localapi.http.replies import json_reply
from localapi.manifest import ManifestSource, profile_names
from localapi.reload.reloader import Attempt
from localapi.system.threads import aside


class ProfilesReply(Struct, kw_only=True):
    """Available profiles, by name."""

    active: str | None
    available: list[str]


class ProfileRequest(BaseModel):
    """Profile to use."""

    model_config = ConfigDict(strict=True, frozen=True)

    profile: str | None = None
    """Profile; null for none."""


def routes(source: Callable[[], ManifestSource], use: Callable[[str | None], Awaitable[Attempt]]) -> ApiBlueprint:
    """Return both endpoints."""
    blueprint = ApiBlueprint("profiles", edit_error_body)
    first = source().profile

    @blueprint.get("/admin/profiles")
    async def profiles() -> Response:
        now = source()
        return json_reply(ProfilesReply(active=now.profile, available=await aside(lambda: _known(now, first))))

    @blueprint.post("/admin/profile")
    async def use_profile() -> Response:
        """Switch to an existing profile; a path chosen by a client is never opened."""
        content = await read_object()
        wanted = parse(ProfileRequest, content).profile
        known = await aside(lambda: _known(source(), first))
        if wanted is not None and wanted not in known:
            raise NotFound(f"There is no profile {shown(wanted)}; available: {', '.join(known) or 'none'}.")
        try:
            attempt = await use(wanted)
        except ManifestError as error:
            raise InvalidManifest(error) from None
        return name_ignored([name for name in content if name != "profile"], json_reply(describe_attempt(attempt)))

    return blueprint


OPERATIONS: Final[Operations] = {
    ("GET", "/admin/profiles"): Operation(summary="The available profiles.", content={JSON: ProfilesReply}),
    ("POST", "/admin/profile"): Operation(
        summary="Switch to another profile.",
        body=ProfileRequest,
        example={"profile": None},
        content={JSON: AttemptReply},
        errors=frozenset({400, 404, 413, 415, 503}),
        others={422: InvalidReply},
    ),
}


def _known(source: ManifestSource, first: str | None) -> list[str]:
    """Return the names of profiles; the one with which the server was started may be a path."""
    names = profile_names(source.manifest)
    return names if first is None or first in names else [first, *names]
