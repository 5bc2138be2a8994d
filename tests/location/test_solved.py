"""What is proved is proved of the answer, whatever it was rounded to."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from oracle import ORACLE, excess, objective
from skbgmd import block_geometric_median, geometric_median

ROUNDED = {
    "float16": (np.float16, (0.0, 100.0), (1.0, 1e-4)),
    "bfloat16": (torch.bfloat16, (0.0, 256.0), (1.0, 1e-30)),
    "float32": (np.float32, (0.0, 1e4), (1.0, 1e-40, 1e33)),
    ">f4": (">f4", (0.0, 1e4), (1.0, 1e30)),
    ">f2": (">f2", (0.0, 100.0), (1.0,)),
    "float64": (np.float64, (0.0, 1e6, 1e9), (1.0, 1e-310, 1e250)),
    "longdouble": (np.longdouble, (0.0, 1e9), (1.0,)),
}


def as_dtype(X, dtype):
    return torch.from_numpy(X).to(dtype) if isinstance(dtype, torch.dtype) else X.astype(dtype)


def held(X):
    """The numbers of an array or a tensor, in extended precision."""
    return np.asarray(X.double() if isinstance(X, torch.Tensor) else X).astype(np.longdouble)


@pytest.mark.parametrize("name", list(ROUNDED))
@pytest.mark.parametrize("shape", [(25, 7), (31, 50), (2, 3)])
@pytest.mark.parametrize("tol", [1e-6, 1e-12])
def test_the_proof_is_of_the_answer_as_rounded(name, shape, tol, path, rng):
    dtype, offsets, scales = ROUNDED[name]
    for offset in offsets:
        for scale in scales:
            X = as_dtype((offset + rng.normal(size=shape)) * scale, dtype)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = geometric_median(X, tol=tol, return_result=True)
            unit = np.longdouble(scale)
            true = excess(held(X) / unit, held(result.median) / unit)
            assert true <= result.gap + ORACLE
            assert result.converged == (result.gap <= tol) == (not caught)
            # Nor is much less proved than is so.
            assert result.gap <= max(tol, 8.0 * true + 1e-13)
            assert result.objective / unit == pytest.approx(
                float(objective(held(X) / unit, held(result.median) / unit)), rel=1e-9
            )


def test_the_block_is_proved_as_rounded_too(path):
    X = (256 + 2 * torch.randint(0, 2, (31, 50), generator=torch.Generator().manual_seed(0))).to(torch.bfloat16)
    for selection in ("top", "uniform"):
        with pytest.warns(ConvergenceWarning, match="use a wider dtype"):
            result = block_geometric_median(X, beta=0.5, selection=selection, random_state=0, return_result=True)
        true = excess(held(X)[:, result.block], held(result.median)[result.block])
        assert 0.01 < true <= result.gap
        assert not result.converged


def test_integers_that_float64_rounds_have_no_proof():
    X = 2**60 + np.random.default_rng(0).integers(0, 9, size=(9, 2))
    with pytest.warns(ConvergenceWarning):
        assert not geometric_median(X, return_result=True).converged
    assert geometric_median(X // 2**20, return_result=True).converged


def test_rows_near_the_median_row_share_its_weight_only_if_they_are_equal(path, rng):
    X = np.repeat(rng.normal(size=(1, 30)), 9, axis=0) + 1e-10 * rng.normal(size=(9, 30))
    X[4:7] = X[4]
    X = np.vstack([X, 1e3 * rng.normal(size=(3, 30))])
    result = geometric_median(X, tol=0.1, return_result=True)
    np.testing.assert_allclose(result.weights @ X, result.median, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float64, torch.float16])
def test_no_warning_while_steps_are_left(dtype, path):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = as_dtype(rng.normal(size=rng.integers(2, 12, size=2)), dtype)
        result = geometric_median(X, tol=0.1, return_result=True)
        assert result.converged
