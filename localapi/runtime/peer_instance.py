"""Instance of a model on a peer. Its state is that on the peer; only a connection is loaded here."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from localapi.backends.engine import Engine, Vitals
from localapi.errors import ModelUnavailable
from localapi.kinds import ModelObject
from localapi.manifest import Entry
from localapi.runtime.instance import Instance
from localapi.runtime.memory import Memory
from localapi.runtime.peers import ModelThere, Peers
from localapi.runtime.states import StateName
from localapi.worker import protocol


class PeerInstance(Instance):
    """A model on a peer."""

    def __init__(self, entry: Entry, peers: Peers, *, since_revision: int, memory: Memory) -> None:
        self._error: str | None = None
        super().__init__(entry.id, entry.options, since_revision=since_revision, memory=memory)
        assert entry.peer is not None  # noqa: S101  # only such entries get one
        self.peer = entry.peer
        self._entry = entry
        self._peers = peers

    @property
    def there(self) -> ModelThere | None:
        """Last report of the peer on the model; None if the peer no longer has it."""
        return self._peers.model(self._entry)

    @property
    def object(self) -> ModelObject | None:
        """The peer's description of the model."""
        return self.there.object if self.there is not None else None

    @property
    def away(self) -> str | None:
        """Reason why the peer cannot be used; None if it can."""
        peer = self._peers.by_name.get(self.peer)
        if peer is None:
            return "the peer has been removed"
        return peer.fault.message if peer.fault is not None else None

    @property
    def state(self) -> StateName:
        """State of the model on the peer; failed if the peer is away."""
        if self.retired:
            return super().state
        if self.away is not None or self.there is None:
            return "failed"
        said = self.there.object.state
        return next((name for name in get_args(StateName) if name == said), "unloaded")

    @property
    def last_error(self) -> str | None:  # an attribute of other instances
        """Reason why the peer is away, or the last error of the model on the peer."""
        if self.away is not None:
            return self.away
        there = self.there.status.last_error if self.there is not None else None
        return there or self._error

    @last_error.setter
    def last_error(self, error: str | None) -> None:
        self._error = error

    @property
    def vitals(self) -> Vitals:
        """Load of the model on the peer, as far as known, and whether it can answer."""
        own = super().vitals or Vitals(memory_bytes=0)
        if self.away is not None or self.there is None:
            return replace(own, healthy=False, reason=self.away or f"{self.peer} no longer has it")
        status = self.there.status
        requests = status.requests
        running = max(own.running, requests.running if requests else 0)
        waiting = status.waiting + (requests.waiting if requests else 0)
        return replace(
            own,
            running=running,
            unanswered=max(own.unanswered, waiting),
            tokens_per_second=own.tokens_per_second or status.tokens_per_second,
            healthy=own.healthy and status.healthy is not False,
            reason=own.reason or status.unhealthy_reason,
        )

    @property
    def progress(self) -> protocol.Loading | None:
        """Progress of the load on the peer, if one is in progress."""
        load = self.there.status.progress if self.there is not None else None
        return protocol.Loading(load.phase, done=load.done, total=load.total) if load is not None else None

    @property
    def loaded(self) -> protocol.Loaded | None:  # an attribute of other instances
        """Facts that the peer reports about the model."""
        there = self.there
        if there is None:
            return None
        return protocol.Loaded(
            context_length=getattr(there.object, "context_length", None),
            batched=getattr(there.object, "batched", True),
            dimensions=getattr(there.object, "dimensions", None),
            capabilities=getattr(there.object, "capabilities", protocol.Capabilities()),
            voices=there.voices,
        )

    @loaded.setter
    def loaded(self, loaded: protocol.Loaded | None) -> None:
        """Do nothing, because the peer's status says more than its API."""

    async def load(self) -> Engine:
        """Return the connection. Raise LoadFailed with the reason if the peer is away."""
        await self._peers.check(self.peer)
        if self.there is None:
            raise ModelUnavailable(f"The peer {self.peer} no longer has the model of {self.name}.")
        return await super().load()
