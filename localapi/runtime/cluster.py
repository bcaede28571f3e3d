"""The manifest's cluster: joined while the manifest names it, so that its nodes are known before they are needed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from localapi.backends.ray_cluster import Gateway, using
from localapi.cluster.protocol import Node
from localapi.errors import LoadFailed
from localapi.runtime.instance import Instance

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 5.0
LAST_PAUSE_SECONDS: Final = 60.0


class ClusterWatch:
    """Task that follows the manifest's cluster. Models that are placed on a cluster work without it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        """Create the watch; `tell` is called when something has changed."""
        self.address: str | None = None
        """Address of the manifest's cluster; None if it has none."""
        self.error: str | None = None
        """Reason why the cluster cannot be used."""
        self._gateway: Gateway | None = None
        self._tell = tell
        self._woken = asyncio.Event()

    @property
    def nodes(self) -> Sequence[Node]:
        """Nodes of the cluster, including those lost recently; none while it is not joined."""
        return self._gateway.nodes if self._gateway is not None else ()

    @property
    def joined(self) -> bool:
        """True while the cluster can be used."""
        return self._gateway is not None

    @property
    def warnings(self) -> list[str]:
        """Warnings for the operator if the cluster cannot be used."""
        return [self.error] if self.error is not None else []

    def follow(self, address: str | None) -> None:
        """Follow the cluster at this address from now on."""
        if address != self.address:
            self.address, self.error = address, None
            self._woken.set()

    async def run(self) -> None:
        """Join the cluster, and rejoin whenever it is lost, until cancelled."""
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            self._woken.clear()
            address = self.address
            if address is None:
                await self._woken.wait()
                continue
            try:
                await self._join(address)
                pause_seconds = FIRST_PAUSE_SECONDS
            except LoadFailed as error:
                if error.message != self.error:
                    log.warning("%s", error.message)
                self.error = error.message
                self._tell()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds):
                        await self._woken.wait()
                pause_seconds = min(2 * pause_seconds, LAST_PAUSE_SECONDS)

    async def _join(self, address: str) -> None:
        """Stay in a cluster until it is lost, or the manifest names another one. Raise LoadFailed."""
        async with using(address) as gateway:
            gateway.listeners.append(self._woken.set)
            self._gateway, self.error = gateway, None
            known: dict[str, Node] = {}
            try:
                while self.address == address and not gateway.ended:
                    alive = {node.id: node for node in gateway.nodes if node.alive}
                    _log_changes(address, known, alive)
                    known = alive
                    self._tell()
                    await self._woken.wait()
                    self._woken.clear()
            finally:
                gateway.listeners.remove(self._woken.set)
                self._gateway = None


def workers_by_node(instances: Iterable[Instance]) -> dict[str, list[str]]:
    """Return the models on each node of a cluster, once for each of their workers."""
    found: dict[str, list[str]] = {}
    for instance in instances:
        for engine in instance.all_supervised:
            vitals = engine.vitals()
            for worker in vitals.ranks or (vitals,):
                if worker.node is not None:
                    found.setdefault(worker.node, []).append(instance.name)
    return found


def _log_changes(address: str, before: dict[str, Node], now: dict[str, Node]) -> None:
    for node in (now[each] for each in now.keys() - before.keys()):
        log.info("cluster %s: node %s joined", address, node.name)
    for node in (before[each] for each in before.keys() - now.keys()):
        log.warning("cluster %s: node %s lost", address, node.name)
