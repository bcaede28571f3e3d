"""The connection between a model's ranks, by what the machine has."""

from __future__ import annotations

import pytest

from localapi.worker.protocol import Rank
from localapi.worker.rank_link import Link, choice, gpus, is_lost, variables

pytestmark = pytest.mark.everyday

HERE = ["127.0.0.1:4001", "127.0.0.1:4002"]
APART = ["10.0.0.1:4001", "10.0.0.2:4001"]


def rank(number: int, addresses: list[str]) -> Rank:
    return Rank(number, addresses, "127.0.0.1:4000", b"secret")


@pytest.mark.parametrize(
    ("addresses", "devices", "environ", "expected"),
    [
        (HERE, [], {}, Link("ring")),
        (HERE, ["0"], {}, Link("ring")),  # one GPU cannot be two devices of NCCL
        (HERE, ["0", "3"], {}, Link("nccl", "3")),
        (APART, ["0"], {}, Link("nccl", "0")),
        (APART, [], {}, Link("ring")),
        (HERE, ["0", "1"], {"MLX_IBV_DEVICES": "devices.json"}, Link("jaccl")),
    ],
)
def test_the_connection_follows_from_the_devices(
    addresses: list[str], devices: list[str], environ: dict[str, str], expected: Link
) -> None:
    assert choice(rank(1, addresses), environ, devices) == expected


@pytest.mark.parametrize(
    ("own_gpus", "devices", "expected"),
    [(1, ["3"], Link("nccl", "3")), (0, ["3"], Link("ring")), (1, [], Link("ring"))],
)
def test_on_a_cluster_the_devices_are_those_that_it_gave(own_gpus: int, devices: list[str], expected: Link) -> None:
    given = Rank(1, HERE, "127.0.0.1:4000", b"secret", own_gpus)
    assert choice(given, {}, devices) == expected


def test_each_backend_gets_its_variables() -> None:
    assert variables(rank(1, HERE), Link("ring")) == {"MLX_RANK": "1"}
    assert variables(rank(1, HERE), Link("jaccl")) == {"MLX_RANK": "1", "MLX_JACCL_COORDINATOR": "127.0.0.1:4001"}
    assert variables(rank(1, HERE), Link("nccl", "3")) == {
        "MLX_RANK": "1",
        "MLX_WORLD_SIZE": "2",
        "NCCL_HOST_IP": "127.0.0.1",
        "NCCL_PORT": "4001",
        "CUDA_VISIBLE_DEVICES": "3",
    }


def test_only_the_devices_that_the_user_allows_are_used() -> None:
    assert gpus({"CUDA_VISIBLE_DEVICES": "2, 5"}) == ["2", "5"]
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[ring] connection to a peer was lost"), True),
        (RuntimeError("[nccl] unhandled system error"), True),
        (RuntimeError("[matmul] Last dimension of first input"), False),
        (ValueError("[ring] is no backend"), False),
    ],
)
def test_a_lost_rank_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_lost(error) == expected
