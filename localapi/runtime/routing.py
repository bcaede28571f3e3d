"""Find the model that answers for a name: the entry itself, or one member of a pool after the other.

A member that fails before anything was sent to the client is skipped. Its work is cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from localapi.backends.choice import conversation_keys
from localapi.backends.engine import connect_limit
from localapi.errors import ApiError, InvalidRequest, ModelBusy, RequestTimeout, RequestTooLarge
from localapi.kinds import Kind
from localapi.manifest import Entry
from localapi.runtime.lease import Lease
from localapi.runtime.pool import Member, Pool, is_worth_another_try, nobody
from localapi.runtime.queue import Ticket
from localapi.runtime.registry import Registry, Rerouted
from localapi.worker.protocol import Preliminary, Request

log = logging.getLogger(__name__)
T = TypeVar("T")
Use = Callable[[Lease], AsyncGenerator[T, None]]
"""Use of a lease by a request. It starts anew for each lease that it gets."""


async def answers(
    registry: Registry, name: str, kind: Kind, ticket: Ticket, use: Use[T], *, about: Sequence[Request] = ()
) -> AsyncGenerator[T, None]:
    """Yield what `use` yields for the lease that a request gets by a name.

    `about` describes the request, for pools that keep a conversation in one place. Raise ModelNotFound, WrongEndpoint,
    ModelBusy, ModelUnavailable, and the errors of `use`.
    """
    while True:
        entry = registry.resolve(name, kind)
        pool = registry.instance(entry.id)
        if isinstance(pool, Pool):
            keys = conversation_keys(about) if pool.pool_options.choose == "sticky" else []
            source = _Trip(registry, entry, pool, ticket, keys).answers(use)
        else:
            source = _answers_of_entry(registry, name, kind, ticket, use)
        try:
            async with aclosing(source) as items:
                async for item in items:
                    yield item
        except Rerouted:  # an edit turned it into a pool, or the reverse
            continue
        return


async def _answers_of_entry(
    registry: Registry, name: str, kind: Kind, ticket: Ticket, use: Use[T]
) -> AsyncGenerator[T, None]:
    async with registry.lease(name, kind, ticket) as lease, aclosing(use(lease)) as items:
        async for item in items:
            yield item


class _Trip:
    """One request on its way through a pool."""

    def __init__(self, registry: Registry, entry: Entry, pool: Pool, ticket: Ticket, keys: Sequence[bytes]) -> None:
        self._registry = registry
        self._entry = entry
        self._pool = pool
        self._ticket = ticket
        self._keys = keys
        """Keys of its conversation, if the pool keeps conversations in one place."""
        self._failures: dict[str, ApiError] = {}
        """Errors of the members that were asked, by id."""
        self._asked_twice: set[str] = set()

    async def answers(self, use: Use[T]) -> AsyncGenerator[T, None]:
        """Yield the response of the first member that gives one. Raise Rerouted if the pool is replaced meanwhile."""
        queue = self._registry.queues[self._entry.id]
        with queue.enter(self._ticket), self._pool.counted(self._ticket):
            async with queue.wait(self._ticket):
                await self._ticket.admitted()
            queue.send(self._ticket)
            while True:
                self._registry.refuse_when_closed()
                if self._pool.retired:
                    raise Rerouted
                member = self._next_member()
                if member is None:
                    rests = [self._pool.record(each).rest_seconds for each in self._pool.members]
                    raise nobody(self._entry, self._failures, rests)
                begun = False
                try:
                    async with aclosing(self._attempt(member, use)) as items:
                        async for item in items:
                            if not begun and not isinstance(item, Preliminary):
                                begun = True
                                self._pool.note_answer(member, self._keys)
                                self._ticket.answer()
                            yield item
                except (InvalidRequest, RequestTooLarge):
                    raise
                except ApiError as error:
                    if begun:
                        raise
                    self._pass_over(member, error)
                else:
                    return

    def _next_member(self) -> Member | None:
        """Return the member to ask, or None if none is left. One whose worker ended is asked a second time."""
        order = self._pool.order(self._keys)
        for member in order:
            if member.entry.id not in self._failures:
                return member
        for member in order:
            name = member.entry.id
            if name not in self._asked_twice and is_worth_another_try(self._failures[name]):
                self._asked_twice.add(name)
                return member
        return None

    async def _attempt(self, member: Member, use: Use[T]) -> AsyncGenerator[T, None]:
        """Yield a member's response. Raise RequestTimeout if it does not begin in time."""
        ticket = Ticket()
        self._ticket.attempt = (member.entry.id, ticket)
        async with AsyncExitStack() as held:
            lease = await self._in_time(
                ticket,
                held.enter_async_context(self._registry.lease_member(self._entry, member.entry.id, ticket)),
            )
            items = await held.enter_async_context(aclosing(use(lease)))
            while not ticket.begun:
                try:
                    item = await self._in_time(ticket, anext(items))
                except StopAsyncIteration:
                    return
                yield item
            async for item in items:
                yield item

    async def _in_time(self, ticket: Ticket, step: Awaitable[T]) -> T:
        limits = self._pool.pool_options.give_up_after
        seconds = limits.first_token
        before = connect_limit.set(limits.connect)
        try:
            async with ticket.wait_to_begin(seconds) as wait:
                return await step
        except TimeoutError:
            if not wait.expired():
                raise
            raise RequestTimeout(
                f"It did not begin to answer within {seconds:g} s (give_up_after.first_token)."
            ) from None
        finally:
            connect_limit.reset(before)

    def _pass_over(self, member: Member, error: ApiError) -> None:
        assert self._ticket.attempt is not None  # noqa: S101  # it was asked
        was_sent = self._ticket.attempt[1].sent_at is not None
        self._failures[member.entry.id] = error
        # A full queue, or a model that is still loading, is not a member's fault.
        waited_in_vain = isinstance(error, RequestTimeout) and not was_sent
        rests = not isinstance(error, ModelBusy) and not waited_in_vain
        seconds = self._pool.note_failure(member, error, rests=rests)
        log.log(
            logging.WARNING if rests else logging.INFO,
            "%s: %s is skipped%s: %s",
            self._entry.id, member.entry.id, f" and rests for {seconds:.0f} s" if seconds else "", error.logged,
        )  # fmt: skip
