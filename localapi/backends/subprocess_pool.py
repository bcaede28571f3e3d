"""Run commands as child processes: a few concurrently, each with a time limit, and none left behind."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass

from localapi.backends.process import describe_end, inherited, kill_group


class CommandTimeout(Exception):
    """A command exceeded its time limit and was killed."""


class CommandsStopped(Exception):
    """All commands were stopped before this one had ended."""


@dataclass(frozen=True)
class CommandResult:
    """Exit status and output of a command that was not stopped by us."""

    status: int
    output: bytes
    errors: bytes

    @property
    def how(self) -> str:
        """Description of its end, for people: "ended with exit status 1: disk full"."""
        last_line = (self.errors or self.output).decode(errors="replace").strip().rpartition("\n")[2]
        words = f": {last_line[:300]}" if last_line else ""
        return f"{describe_end(self.status)}{words}"


class Commands:
    """Commands of one engine, run in the order of their arrival."""

    def __init__(self, at_once: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._running: set[Process] = set()
        self._stopped = False

    async def run(self, *command: str, text: bytes | None = None, seconds: float) -> CommandResult:
        """Run a command, with `text` on its stdin, as soon as a slot is free.

        Raise CommandTimeout, CommandsStopped, or OSError if it cannot be started. Afterwards, even after a
        cancellation, the process has ended and is reaped.
        """
        async with self._places:
            if self._stopped:
                raise CommandsStopped
            # Its own process group: Ctrl-C in the terminal reaches only the server.
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL if text is None else PIPE,
                stdout=PIPE,
                stderr=PIPE,
                process_group=0,
                env=inherited(),
            )
            self._running.add(process)
            try:
                return await self._result_of(process, text, seconds)
            finally:
                if process.returncode is None:
                    kill_group(process)
                    await process.communicate()
                self._running.discard(process)

    async def _result_of(self, process: Process, text: bytes | None, seconds: float) -> CommandResult:
        if not self._stopped:
            try:
                async with asyncio.timeout(seconds):
                    output, errors = await process.communicate(text)
            except TimeoutError:
                raise CommandTimeout from None
        if self._stopped:
            raise CommandsStopped
        assert process.returncode is not None  # noqa: S101  # it has been waited for
        return CommandResult(process.returncode, output, errors)

    def stop(self) -> None:
        """Kill running commands, and start no more."""
        self._stopped = True
        for process in self._running:
            kill_group(process)
