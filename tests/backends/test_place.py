"""Entries that are placed on a cluster: what is loaded, and what this machine has to do with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from localapi.backends.mlx_lm import MlxLm
from localapi.backends.ray_cluster import Site
from localapi.backends.vector_options import OnnxEmbedding
from localapi.cluster.protocol import Requirements
from localapi.runtime.memory import expected_bytes

pytestmark = pytest.mark.everyday


def entry(folder: Path, *, path: str = "demo", cluster: str = "auto", **place: object) -> MlxLm:
    options = MlxLm.model_validate({"backend": "mlx-lm", "path": path, "place": place})
    return options.located(lambda _: folder).on_cluster(cluster)


def test_another_place_or_cluster_is_another_model(tmp_path: Path) -> None:
    identities = [
        entry(tmp_path).identity(),
        entry(tmp_path, node="studio").identity(),
        entry(tmp_path, cluster="box:6379").identity(),
    ]

    assert all(identities.count(each) == 1 for each in identities)
    assert entry(tmp_path, node="studio").identity() == identities[1]


@pytest.mark.parametrize(
    ("path", "there"),
    [("demo", "demo"), ("owner/name", "owner/name"), ("./models/a", "{folder}/models/a"), ("/models/a", "/models/a")],
)
def test_a_path_is_looked_up_on_the_node(tmp_path: Path, path: str, there: str) -> None:
    assert entry(tmp_path, path=path).path == there.replace("{folder}", str(tmp_path))


def test_vectors_can_be_computed_on_a_node(tmp_path: Path) -> None:
    placed = OnnxEmbedding.model_validate({"backend": "onnx", "path": "./absent", "place": {"cpus": 2}})
    options = placed.located(lambda _: tmp_path).on_cluster("auto")

    assert options.path == str(tmp_path / "absent")
    assert options.site == Site("auto", Requirements(cpus=2))


def test_a_placed_model_takes_no_memory_here(tmp_path: Path) -> None:
    assert expected_bytes(entry(tmp_path)) == 0
