"""The peers of the manifest: regularly asked for what they offer, and represented by entries.

Entries of peers are a source beside the manifest. `Peers.extend` adds them to a manifest that has been read, and a
change of a peer's offer requests a pass of the reloader, so they appear, change and disappear like all other entries.
What changes from moment to moment, such as states and queues, is not part of the entries but of `PeerInstance`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from localapi.backends.peer import SEPARATOR, Answer, PeerClient, PeerOptions, StatusThere
from localapi.errors import ApiError, UpstreamFailed, UpstreamUnavailable
from localapi.kinds import KINDS, ModelObject
from localapi.manifest import Entry, Manifest
from localapi.system.timer import growing_pause
from localapi.worker.protocol import Voice

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Interval between questions to a peer that responds."""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
LEAST_SECONDS: Final = 0.5
"""Minimum time between two questions, however many requests want to know whether the peer is back."""
CHECK_SECONDS: Final = 1.0
"""Time for which a request waits to learn whether an absent peer is back."""


@dataclass(frozen=True)
class ModelThere:
    """Model of a peer, as last seen."""

    object: ModelObject
    """Description of the model by the peer."""
    status: StatusThere
    """Status of the model; unknown without the admin right."""
    voices: list[Voice] | None = None


class Peer:
    """One peer: the task that asks it, and its last answer."""

    def __init__(self, name: str, options: PeerOptions, *, sender: str, changed: Callable[[bool], None]) -> None:
        """Create a peer that is not asked yet.

        `changed` is called with True if the entries change, and with False for all other changes.
        """
        self.name = name
        self.options = options
        self.models: Mapping[str, ModelThere] = {}
        """Models by id. They are kept while the peer is away."""
        self.fault: ApiError | None = None
        """Reason why it cannot be used."""
        self.seen_at: float | None = None
        """Unix time of its last response."""
        self._sender = sender
        self._changed = changed
        self._failures = 0
        self._client: PeerClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._asked = asyncio.Event()
        """Event that is set, then replaced, after each question."""

    @property
    def is_known(self) -> bool:
        """True once it has responded or failed."""
        return self.fault is not None or self.seen_at is not None

    @property
    def warning(self) -> str | None:
        """Warning for the operator, if the peer cannot be used."""
        if self.fault is None:
            return None
        seen = time.strftime(" It last responded at %H:%M.", time.localtime(self.seen_at)) if self.seen_at else ""
        return f"peers.{self.name}: {self.fault.message}{seen}"

    def entries(self, options: PeerOptions) -> list[Entry]:
        """Return the entries for its models. `options` are those of the manifest that gets them."""
        offered = [each.object for each in self.models.values() if options.offers(each.object.id)]
        entries = [Entry.of_peer(self.name, options, model) for model in offered]
        return [entry for entry in entries if entry is not None]

    # Following it

    def begin(self) -> None:
        """Start asking."""
        self._task = asyncio.create_task(self._follow(), name=f"peer {self.name}")

    async def close(self) -> None:
        """Stop asking."""
        self.fault = UpstreamUnavailable(f"The peer {self.name} has been removed.")
        self._asked.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def follow(self, options: PeerOptions) -> None:
        """Apply an edit; secrets are read again."""
        self.options = options
        self._woken.set()

    async def check(self) -> None:
        """Ask an absent peer whether it is back. Raise UpstreamUnavailable and UpstreamRefused."""
        if not self.is_known or self.fault is not None:
            asked = self._asked
            self._woken.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS if self.is_known else None):
                    await asked.wait()
        if self.fault is not None:
            raise self.fault

    async def _follow(self) -> None:
        try:
            while True:
                self._woken.clear()
                options = self.options
                await self._look(options)
                self._asked.set()
                self._asked = asyncio.Event()
                await asyncio.sleep(LEAST_SECONDS)
                pause = pause_seconds(self._failures) - LEAST_SECONDS
                try:
                    async with asyncio.timeout(max(pause, 0)):
                        await self._woken.wait()
                except TimeoutError:
                    continue
                if options is not self.options:
                    await self._hang_up()
        finally:
            await self._hang_up()

    async def _look(self, options: PeerOptions) -> None:
        try:
            if self._client is None:
                self._client = await PeerClient.open(self.name, options, sender=self._sender)
                for warning in self._client.upstream.warnings:
                    log.warning("peers.%s: %s", self.name, warning)
            answer = await self._client.ask()
        except ApiError as error:
            self._note_fault(error)
            await self._hang_up()  # a key that has been corrected is read again
        except Exception:  # a bug must not end the task, and with it the peer
            log.exception("peers.%s: the reply could not be read", self.name)
            self._note_fault(UpstreamFailed(f"The reply of the peer {self.name} could not be read; see the log."))
        else:
            self._note(answer)

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _note(self, answer: Answer) -> None:
        is_back = self.fault is not None or self.seen_at is None
        self._failures, self.fault, self.seen_at = 0, None, time.time()
        models = [_model(each, answer) for each in answer.models]
        found = {each.object.id: each for each in models if each is not None}
        if is_back:
            log.info("peers.%s: available, with %d models", self.name, len(found))
        if found == self.models and not is_back:
            return
        before = self.entries(self.options)
        self.models = found
        self._changed(self.entries(self.options) != before)

    def _note_fault(self, error: ApiError) -> None:
        is_news = self.fault is None or self.fault.message != error.message
        self._failures += 1
        self.fault = error
        if is_news:
            log.warning("%s", self.warning)
            self._changed(False)


def pause_seconds(failures: int) -> float:
    """Return the seconds until the next question, given the number of failed ones."""
    if failures == 0:
        return LOOK_SECONDS
    return growing_pause(failures, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)


def _model(said: Mapping[str, Any], answer: Answer) -> ModelThere | None:
    """Return a model that a peer describes; None if its kind or its description is unknown here."""
    kind = KINDS.get(str(said["kind"]))
    found = kind.described(said) if kind is not None else None
    if found is None:
        return None
    return ModelThere(found, answer.status.get(found.id, StatusThere()), answer.voices.get(found.id))


@dataclass
class Peers:
    """All peers of the manifest."""

    server_id: str
    """Id of this server, by which it recognizes requests that return to it."""
    changed: Callable[[bool], None] = lambda _: None
    """Function that is called with True if a pass of the reloader is needed, otherwise with False."""
    by_name: dict[str, Peer] = field(default_factory=dict)
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def warnings(self) -> list[str]:
        """Warnings about peers that cannot be used."""
        said = [peer.warning for peer in self.by_name.values()]
        return [warning for warning in said if warning is not None]

    def extend(self, manifest: Manifest) -> Manifest:
        """Return a manifest with the models of its peers, as last seen."""
        entries: list[Entry] = []
        for name, options in manifest.peers.items():
            peer = self.by_name.get(name)
            if peer is not None and peer.options.url == options.url:  # another address may be another server
                entries += peer.entries(options)
        return manifest.with_peers(entries)

    def follow(self, peers: Mapping[str, PeerOptions]) -> None:
        """Follow the peers of the current manifest."""
        for name, peer in list(self.by_name.items()):
            if name in peers and peers[name].url == peer.options.url:
                continue
            leaving = asyncio.create_task(self.by_name.pop(name).close(), name=f"leave peer {name}")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        for name, options in peers.items():
            if name in self.by_name:
                self.by_name[name].follow(options)
            else:
                peer = self.by_name[name] = Peer(name, options, sender=self.server_id, changed=self.changed)
                peer.begin()

    def model(self, entry: Entry) -> ModelThere | None:
        """Return what is known of an entry's model; None if the peer no longer has it."""
        peer = self.by_name.get(entry.peer or "")
        return peer.models.get(entry.id.removeprefix(f"{entry.peer}{SEPARATOR}")) if peer is not None else None

    def is_asked(self, name: str) -> bool:
        """Return False if a name is that of a peer's model, and the peer has not been asked yet."""
        peer = self.by_name.get(name.partition(SEPARATOR)[0])
        return peer is None or peer.is_known

    async def check(self, name: str) -> None:
        """Ask an absent peer whether it is back. Raise LoadFailed."""
        peer = self.by_name.get(name)
        if peer is None:
            raise UpstreamUnavailable(f"The peer {name} has been removed.")
        await peer.check()

    async def close(self) -> None:
        """Stop asking all peers."""
        await asyncio.gather(*(peer.close() for peer in self.by_name.values()), *self._leaving)
