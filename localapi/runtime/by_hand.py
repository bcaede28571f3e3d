"""Actions on one model through the API: load it, unload it, pin it.

Pins are kept by the registry, because an edit of the manifest may override them.
"""

from __future__ import annotations

import logging
from functools import partial

from localapi.errors import InvalidRequest, ModelInUse
from localapi.manifest import Entry
from localapi.runtime.instance import Instance
from localapi.runtime.registry import Registry

log = logging.getLogger(__name__)


async def load(registry: Registry, name: str) -> Instance:
    """Load the model of a name, even if it failed recently; for a pool, the member that would answer.

    Raise ModelNotFound and LoadFailed.
    """
    _own(registry, name)
    _, instance = await registry.open_instance(lambda: registry.expected(registry.resolve(name)))
    instance.backoff.reset()
    await instance.load()
    return instance


async def unload(registry: Registry, name: str) -> Instance:
    """Unload the model of a name once its requests have ended. New requests wait, and load it again.

    Raise ModelNotFound, or ModelInUse if requests run for longer than `drain_seconds`.
    """
    _, instance = await registry.open_instance(partial(_own_model, registry, name))
    seconds = registry.drain_seconds
    if not await instance.unload_when_idle(seconds):
        raise ModelInUse(
            f"Running requests of {instance.name} ({instance.leases}) did not end within {seconds:g} s "
            "(drain_seconds); it stays loaded. Try again later."
        )
    registry.set_pin(instance.name, by_hand=False)
    return instance


async def pin(registry: Registry, name: str) -> Instance:
    """Load the model of a name and keep it loaded. If that fails, leave it unpinned and raise LoadFailed."""
    entry, _ = await registry.open_instance(partial(_own_model, registry, name))
    was_pinned = entry.id in registry.pinned_by_hand
    registry.set_pin(entry.id, by_hand=True)
    try:
        instance = await load(registry, entry.id)
    except BaseException:
        registry.set_pin(entry.id, by_hand=was_pinned)
        raise
    log.info("%s: pinned through the API", instance.name)
    return instance


def unpin(registry: Registry, name: str) -> Instance:
    """Undo a pin through the API. Raise ModelNotFound, and InvalidRequest if the manifest pins the model."""
    entry = _own_model(registry, name)
    if entry.options.pin:
        raise _refused(
            f"The manifest pins {entry.id}. Remove `pin: true` there; the server applies it as soon as you save it."
        )
    if entry.id in registry.pinned_by_hand:
        registry.set_pin(entry.id, by_hand=False)
        log.info("%s: unpinned through the API", entry.id)
    return registry.instance(entry.id)


def _own(registry: Registry, name: str) -> Entry:
    """Return the entry of a name or of a variant. Raise ModelNotFound, and InvalidRequest if it is a peer's."""
    entry = registry.entries[registry.resolve(name).model_id]
    if entry.peer is not None:
        raise _refused(f"{entry.id} is a model of the peer {entry.peer}, which loads and unloads it. Ask that server.")
    return entry


def _own_model(registry: Registry, name: str) -> Entry:
    """Return the entry of a name. Raise ModelNotFound, and InvalidRequest if it is a pool or a peer's."""
    entry = _own(registry, name)
    if entry.options.is_pool:
        raise _refused(f"{entry.id} is a pool and loads nothing itself. Use the name of a member.")
    return entry


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="model", code="invalid_value")
