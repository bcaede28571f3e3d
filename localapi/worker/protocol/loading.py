"""Loading a model: the server's request, the progress, and the facts that are known once the model is ready."""

from __future__ import annotations

from typing import Any

import msgspec

from localapi.worker.protocol.capabilities import Capabilities


class Rank(msgspec.Struct, frozen=True):
    """Worker's place among the ranks that hold one model. Rank 0 decides, the others follow."""

    number: int
    addresses: list[str]
    """Addresses at which the ranks listen for each other: "127.0.0.1:4000"."""
    plans: str
    """Address on which rank 0 listens for the connections over which it sends its plans."""
    secret: bytes
    """Secret that a rank must show on such a connection."""
    own_gpus: int | None = None
    """GPUs that a cluster assigned to each rank; None if the ranks share those of their machine."""


class LoadModel(msgspec.Struct, tag=True):
    """Server to worker, once and first: what to load."""

    engine: str
    """Name of the backend, as listed in `localapi.worker.__main__`: "mlx-lm"."""
    options: dict[str, Any]
    """The entry's identity as the backend's options: plain values, with absolute paths."""
    rank: Rank | None = None
    """Worker's rank; None if it holds the whole model."""


class Voice(msgspec.Struct, frozen=True):
    """A voice of a speech engine."""

    id: str
    """Name in requests."""
    name: str = ""
    """Display name, if it differs from the id."""
    language: str = ""
    """BCP 47 tag such as "en-GB"; empty if the engine does not report it."""


AWAITING_RANKS = "waiting for the other ranks"
"""Phase of a load in which a rank can do nothing until all others have come as far."""


AWAITING_ROOM = "waiting for room on the cluster"
"""Phase of a load that continues only if others release resources of the cluster."""


class Loading(msgspec.Struct, tag=True):
    """Worker to server: the progress of loading."""

    phase: str
    """Current step, in plain language: "importing mlx-lm", "downloading", "reading weights"."""
    done: int = 0
    total: int = 0
    """Bytes; 0 if nothing is counted."""
    detail: str = ""
    """More about the step, which may change all the time and is not logged."""

    @property
    def text(self) -> str:
        """Step with its detail."""
        return f"{self.phase}: {self.detail}" if self.detail else self.phase


class Loaded(msgspec.Struct, tag=True):
    """Worker to server: the model is ready."""

    context_length: int | None = None
    """Tokens of prompt and response together; None if the model does not state it."""
    notes: list[str] = []
    """Notes for users about how this model runs ("no chat template ...")."""
    batched: bool = True
    """True if requests are answered together, False if one after the other."""
    voices: list[Voice] | None = None
    """Voices of a speech model; None if only the model knows them, or there is no choice."""
    dimensions: int | None = None
    """Length of the vectors of an embedding model."""
    takes: list[str] | None = None
    """Backend's further request fields that this model supports; None for all of them."""
    capabilities: Capabilities = Capabilities()
    device_bytes: int = 0
    """Memory of an accelerator, as in Step."""


class LoadRefused(msgspec.Struct, tag=True):
    """Worker to server: the model cannot be loaded. The worker exits after this."""

    message: str
    port_taken: bool = False
    """True if another process listens on this rank's address, so that other ports may work."""
