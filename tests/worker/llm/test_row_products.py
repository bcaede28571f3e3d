"""Single rows times large float32 weights: the same results as MLX's own, by the BLAS's matrix-vector product."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json
from localapi.worker.blas import install_openblas
install_openblas()
import mlx.core as mx
from mlx import nn
from localapi.worker.llm import row_products

if row_products.gemv() is None:
    print(json.dumps(None))
    raise SystemExit
row_products.LARGE = 1000
called = []
real = row_products.product
row_products.product = lambda x, weight: called.append(x.shape) or real(x, weight)
mx.random.seed(1)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(96, 64)
        self.wide = nn.Linear(64, 200, bias=True)
        self.narrow = nn.Linear(200, 64, bias=False)
        self.small = nn.Linear(64, 4)
        self.half = nn.Linear(64, 64, bias=False)
        self.half.weight = self.half.weight.astype(mx.bfloat16)

    def __call__(self, tokens):
        x = self.narrow(self.wide(self.table(tokens)[..., ::1]))
        return self.table.as_linear(x), self.small(x), self.half(x)

model = Model()
mx.eval(model.parameters())
row, rows, batch = mx.array([[5]]), mx.array([[5, 9, 2]]), mx.array([[5], [9]])
before = [model(each) for each in (row, rows, batch)]
replaced = row_products.use_in(model)
after = [model(each) for each in (row, rows, batch)]
close = [
    all(mx.allclose(a, b, rtol=1e-4, atol=1e-4).item() and a.shape == b.shape and a.dtype == b.dtype
        for a, b in zip(x, y))
    for x, y in zip(before, after)
]
strided = mx.random.normal((1, 128))[:, ::2]
right = mx.allclose(model.wide(strided), strided @ model.wide.weight.T + model.wide.bias, atol=1e-4).item()
print(json.dumps({"replaced": replaced, "close": close, "called": called, "strided": right}))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    if told is None:
        pytest.skip("no BLAS with a matrix-vector product is loaded for MLX here")
    return told


def test_the_large_float32_layers_are_replaced_and_no_others(found: Any) -> None:
    assert found["replaced"] == 3


def test_results_are_those_of_the_layers_before(found: Any) -> None:
    assert found["close"] == [True, True, True]


def test_only_single_rows_are_multiplied_by_themselves(found: Any) -> None:
    assert found["called"][:3] == [[1, 1, 64], [1, 1, 200], [1, 1, 64]]
    assert len(found["called"]) == 4  # and the row whose numbers do not lie side by side


def test_a_row_whose_numbers_do_not_lie_side_by_side_is_read_right(found: Any) -> None:
    assert found["strided"] is True
