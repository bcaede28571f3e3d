"""Traces of requests for a collector, if the manifest asks for them. Nothing of OpenTelemetry is imported before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from localapi.observability.spans import Sender, Trace

log = logging.getLogger(__name__)

PACKAGE: Final = "opentelemetry-exporter-otlp-proto-http"
"""Package of the extra `traces` that needs all others."""


class TraceOptions(Protocol):
    """Destination and content of traces."""

    @property
    def endpoint(self) -> str | None:
        """Base URL of the collector; None for the OTEL_ variables."""

    @property
    def contents(self) -> bool:
        """True if they contain contents of requests and responses."""


class Traces:
    """Follower of the manifest that starts traces if the manifest asks for them and the packages are installed."""

    def __init__(self) -> None:
        self.warning: str | None = None
        """Reason why there are no traces although the manifest asks for them."""
        self._options: TraceOptions | None = None
        self._sender: Sender | None = None

    def follow(self, options: TraceOptions | None) -> None:
        """Send traces elsewhere from now on, or nowhere.

        Packages are imported in a thread, because that takes a moment.
        """
        if options == self._options:
            return
        old, self._sender = self._sender, None
        self._options, self.warning = options, None
        threading.Thread(target=self._change, args=(old, options), name="traces", daemon=True).start()

    def begin(self, headers: Mapping[str, str]) -> Trace | None:
        """Return the trace of a request with these headers, which may belong to a trace; None if there is none."""
        sender = self._sender
        return None if sender is None else sender.begin(headers)

    def close(self) -> None:
        """Send the remaining spans, for a moment. Blocks."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _change(self, old: Sender | None, options: TraceOptions | None) -> None:
        if old is not None:
            old.close()
        if options is None:
            return
        try:
            spans = import_module("localapi.observability.spans")
            sender: Sender = spans.Sender(options.endpoint, contents=options.contents)
        except ImportError as error:
            self._warn(options, f"the package {error.name} is not installed. Install: uv pip install {PACKAGE}")
        except Exception as error:  # from the OTEL_ variables
            self._warn(options, f"traces cannot be sent: {error}")
        else:
            if self._options is not options:  # the manifest was edited in the meantime
                sender.close()
                return
            self._sender = sender
            log.info("sending traces to %s", sender.address)

    def _warn(self, options: TraceOptions, reason: str) -> None:
        if self._options is options:
            self.warning = f"server.traces: {reason}"
            log.warning("%s", self.warning)
