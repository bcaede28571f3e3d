"""Options that place an entry's worker on a cluster."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr

from localapi.backends.option_types import StrictModel
from localapi.backends.options import EntryOptions, Identity, MemorySize, Name
from localapi.backends.ray_cluster import Site
from localapi.cluster.protocol import Requirements

_ADDRESS = re.compile(r"auto|[A-Za-z0-9_.-]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}")


def _address(value: object) -> object:
    if isinstance(value, str) and not _ADDRESS.fullmatch(value):
        raise ValueError("should be auto, or host:port such as 192.168.1.5:6379; ray:// is not supported")
    return value


class ClusterOptions(StrictModel):
    """Cluster on which entries can be placed."""

    ray: Annotated[
        str,
        BeforeValidator(_address),
        Field(
            description="host:port of a Ray cluster, or auto: RAY_ADDRESS, or the one that this machine is part of.",
            examples=["192.168.1.5:6379"],
        ),
    ]


class Place(StrictModel):
    """Resources that a worker takes from a cluster. Ray chooses a node that has them."""

    node: Annotated[
        Name | None,
        Field(description="Node, by name, host name or address. Default: any.", examples=["studio"]),
    ] = None
    cpus: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Number of processor cores.", examples=[8])] = 1
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Number of GPUs.", examples=[1])] = 0
    memory: Annotated[
        MemorySize, Field(description="Main memory that Ray reserves for the worker.", examples=["16GB"])
    ] = None
    resources: Annotated[
        dict[Name, Annotated[float, Field(gt=0, allow_inf_nan=False)]],
        Field(description="Custom resources, as given to nodes by `ray start --resources`.", examples=[{"mac": 1}]),
    ] = {}
    spread: Annotated[
        bool | Literal["strict"],
        Field(
            description="Prefer the least used node, instead of filling one node after the other. strict: the shards "
            "of a model never share a node."
        ),
    ] = False

    @property
    def requirements(self) -> Requirements:
        """Resources to request from the cluster."""
        return Requirements(
            node=self.node,
            cpus=self.cpus,
            gpus=self.gpus,
            memory_bytes=self.memory or 0,
            resources=dict(self.resources),
            spread=self.spread,
        )


class Placeable(EntryOptions):
    """An entry whose worker can run on a node of the cluster."""

    place: Annotated[
        Place | None,
        Field(
            description="Run on a node of server.cluster, with these resources. Default: on this machine.",
            examples=[{"gpus": 1}],
        ),
    ] = None
    _cluster: str | None = PrivateAttr(default=None)

    @property
    def is_remote(self) -> bool:
        return self.place is not None

    def on_cluster(self, address: str | None) -> Self:
        placed = self.model_copy()
        placed._cluster = address if self.is_remote else None
        return placed

    def identity(self) -> Identity:
        """Return the identity with the cluster's address: another cluster is another place."""
        identity = super().identity()
        if self.place is None:
            return identity
        return Identity(identity.backend, {**identity.options, "cluster": self._cluster})

    @property
    def site(self) -> Site | None:
        """Place in which to start the worker; None for this machine."""
        if self.place is None or self._cluster is None:
            return None
        return Site(self._cluster, self.place.requirements)
