"""Choose how the ranks of one model exchange numbers, and the variables that MLX's backend for it reads.

This module does not import MLX, because CUDA reads its variable when MLX is imported. Only the ring was tested on real
hardware; JACCL (RDMA over Thunderbolt) and NCCL (CUDA) are used as `mlx.launch` of MLX 0.32 uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from localapi.worker.protocol import Rank

Backend = Literal["ring", "nccl", "jaccl"]

_NVIDIA: Final = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True)
class Link:
    """Connection between ranks."""

    backend: Backend
    gpu: str = ""
    """CUDA device of this rank, if it needs its own."""


ALONE: Final = Link("ring")
"""Link of a worker that holds the whole model."""


def gpus(environ: Mapping[str, str]) -> list[str]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(_NVIDIA.iterdir())] if _NVIDIA.is_dir() else []


def choice(rank: Rank, environ: Mapping[str, str], devices: Sequence[str]) -> Link:
    """Return JACCL if its devices are configured, NCCL if there is a CUDA device for each rank, otherwise the ring."""
    if environ.get("MLX_IBV_DEVICES"):
        return Link("jaccl")
    if rank.own_gpus is not None:
        return Link("nccl", devices[0]) if rank.own_gpus and devices else Link("ring")
    own = _host(rank.addresses[rank.number])
    mates = [number for number, address in enumerate(rank.addresses) if _host(address) == own]
    if len(devices) < len(mates):
        return Link("ring")
    return Link("nccl", devices[mates.index(rank.number)])


def variables(rank: Rank, link: Link) -> dict[str, str]:
    """Return the environment that MLX's backend reads. The ring also needs a file, which `shards.group` makes."""
    found = {"MLX_RANK": str(rank.number)}
    if link.backend == "jaccl":
        found["MLX_JACCL_COORDINATOR"] = rank.addresses[0]
    if link.backend == "nccl":
        found["MLX_WORLD_SIZE"] = str(len(rank.addresses))
        found["NCCL_HOST_IP"], _, found["NCCL_PORT"] = rank.addresses[0].rpartition(":")
        found["CUDA_VISIBLE_DEVICES"] = link.gpu
    return found


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def is_lost(error: Exception) -> bool:
    """Return True if MLX's backend reports that another rank is gone, as the ring does: "[ring] connection to …"."""
    return isinstance(error, RuntimeError) and str(error).startswith(tuple(f"[{name}]" for name in get_args(Backend)))
