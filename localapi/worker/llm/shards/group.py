"""Join the ranks of one model: MLX's group for numbers, and the tokens that rank 0 samples for all.

The numbers of a model go over MLX's backend (`rank_link`). A rank that waits there computes all the time, and waits
forever if another one hangs, so ranks go there only when rank 0's next plan tells them to (`plans`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from localapi.worker.model import CannotLoad, Host, PortTaken, first_line
from localapi.worker.protocol import AWAITING_RANKS, Loading


def join(host: Host) -> mx.distributed.Group:
    """Wait for the other ranks, and return the group of all. The server ends this process if they do not arrive."""
    assert host.rank is not None  # noqa: S101  # only ranks join
    host.report(Loading(AWAITING_RANKS))
    addresses = _pipe_with(json.dumps([[address] for address in host.rank.addresses]))
    os.environ["MLX_HOSTFILE"] = f"/dev/fd/{addresses}"  # for the ring; nothing is left on disk
    link = host.link
    if link == "nccl" and not mx.distributed.is_available(link):  # the machine has GPUs, and an MLX without CUDA
        link = "ring"
    try:
        return mx.distributed.init(strict=True, backend=link)
    except (RuntimeError, ValueError) as error:
        kind = PortTaken if "bind socket" in str(error) else CannotLoad
        raise kind(
            f"Rank {host.rank.number} could not join the others over MLX's backend {link} at "
            f"{host.rank.addresses[host.rank.number]}: {first_line(error)}."
        ) from error
    finally:
        os.close(addresses)


def _pipe_with(text: str) -> int:
    """Return a descriptor from which this text can be read."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe:
        pipe.write(text)
    return read_end


class SharedTokens:
    """Give every rank the tokens that rank 0 has sampled, as part of the step's graph."""

    def __init__(self, group: mx.distributed.Group) -> None:
        self._group = group
        self._last: mx.array | None = None

    def __call__(self, tokens: mx.array) -> mx.array:
        """Return rank 0's tokens. The order of these calls must be the same on all ranks."""
        if self._group.rank() != 0:
            # Zero, and still computed from the logits: what does not depend on the model's own exchanges could
            # be exchanged before them here and after them on rank 0.
            tokens = tokens * 0
        if self._last is not None:  # for the same reason, if a step samples several times
            tokens = mx.depends(tokens, self._last)
        self._last = mx.distributed.all_sum(tokens.astype(mx.uint32), group=self._group)
        return self._last


@dataclass(eq=False)
class SharedSampler:
    """A row's sampler on a rank. Its number is the same on all of them."""

    number: int
    sample: Callable[[mx.array], mx.array]
    share: SharedTokens

    def __call__(self, logprobs: mx.array) -> mx.array:
        return self.share(self.sample(logprobs))

    @property
    def error(self) -> Exception | None:
        """The error of rank 0's own sampler."""
        return getattr(self.sample, "error", None)
