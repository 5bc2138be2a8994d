"""Data frames of pandas, polars, pyarrow and narwhals around them, and what takes them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, block_geometric_median, geometric_median
from skbgmd.corruption import GaussianNoise

N = 40
SIZE = np.random.default_rng(0).normal(size=N)
COUNT, TEXT = np.arange(N) % 5, ["red", "green"] * (N // 2)
DAYS = np.datetime64("2020-01-01", "us") + 86_400_000_000 * np.arange(N)
Y = np.arange(N) % 2
#: Integers that float64 doesn't tell apart.
LARGE = 2**53 + Y


def of_pandas(columns):
    return pd.DataFrame(columns)


def of_polars(columns):
    return pytest.importorskip("polars").DataFrame(columns)


def of_pyarrow(columns):
    return pytest.importorskip("pyarrow").table(columns)


def of_batches(columns):
    return of_pyarrow(columns).combine_chunks().to_batches()[0]


def of_narwhals(columns):
    return pytest.importorskip("narwhals").from_native(of_polars(columns))


def around_pandas(columns):
    return pytest.importorskip("narwhals").from_native(of_pandas(columns))


FRAMES = pytest.mark.parametrize(
    "frame_of",
    [of_pandas, of_polars, of_pyarrow, of_batches, of_narwhals, around_pandas],
    ids=lambda made: made.__name__,
)


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, table):
        return self.linear(table)


def classifier(module=None):
    return BlockGMDClassifier(module, max_epochs=1, random_state=0)


AS_X = {
    "fit": lambda table: classifier().fit(table, Y),
    "module": lambda table: classifier(Linear).fit(table, Y),
    "dict": lambda table: classifier(Linear).fit({"table": table}, Y),
    "predict": lambda table: classifier().fit(np.c_[SIZE, COUNT], Y).predict(table),
    "median": geometric_median,
    "block": lambda table: block_geometric_median(table, beta=0.5, random_state=0),
    "noise": lambda table: GaussianNoise().fit(table),
}
AS_Y = {"targets": lambda table: BlockGMDRegressor(max_epochs=1).fit(np.c_[SIZE, COUNT], table)}
USES = pytest.mark.parametrize("use", [*AS_X.values(), *AS_Y.values()], ids=[*AS_X, *AS_Y])
