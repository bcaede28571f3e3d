"""Options of an entry that is split over several processes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from localapi.backends.mlx_lm import MlxLm
from localapi.runtime.memory import expected_bytes

pytestmark = pytest.mark.everyday


def entry(**options: Any) -> MlxLm:
    return MlxLm(backend="mlx-lm", path="owner/name", **options)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"shards": 2, "adapter": "./lora"}, "shards"),
        ({"shards": 2, "draft": "owner/small"}, "shards"),
        ({"shards": 2, "kv_bits": 8}, "shards"),
        ({"shards": 2, "prefix_cache_disk_mb": 100}, "shards"),
        ({"shards": 2, "cpu_weights": "float32"}, "shards"),
        ({"shards": 2, "place": {"node": "box", "spread": "strict"}}, "shards"),
        ({"shards": 0}, "shards"),
        ({"shards": 2, "split": "half"}, "split"),
    ],
)
def test_options_that_cannot_be_split_are_refused(options: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        entry(**options)
    assert [error["loc"] for error in refused.value.errors()] == [(place,)]


def test_one_process_may_have_all_options() -> None:
    assert entry(shards=1, kv_bits=8, adapter="./lora", split="auto").processes == 1


def test_each_process_counts_for_the_memory_budget() -> None:
    assert expected_bytes(entry(shards=3)) == 3 * expected_bytes(entry())
