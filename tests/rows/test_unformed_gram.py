"""Products with the Gram matrix of many rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skbgmd.ghost import DenseFactor, GhostRows
from skbgmd.rows import DenseRows
from skbgmd.rows.unformed_gram import unformed_gram


@pytest.mark.parametrize("kind", ["dense", "ghost"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_products_are_those_of_the_matrix(kind, dtype, rtol, rng):
    x = torch.from_numpy(rng.normal(size=(20, 7))).to(dtype)
    found = unformed_gram(DenseRows(x) if kind == "dense" else GhostRows([(0, DenseFactor(x[:, :, None]))], 20, 7))
    whole = (x.double() @ x.double().T).numpy()
    v = rng.normal(size=20)
    np.testing.assert_allclose(found.product(v), whole @ v, rtol=rtol, atol=10 * rtol)
    np.testing.assert_allclose(found.norms, np.sqrt(np.diagonal(whole)), rtol=rtol)
    near = rng.random(20) < 0.5
    some, u = found.subset(near), rng.normal(size=int(near.sum()))
    np.testing.assert_allclose(some.product(u), whole[np.ix_(near, near)] @ u, rtol=rtol, atol=10 * rtol)
    np.testing.assert_array_equal(some.norms, found.norms[near])
    assert some.restore(u) is u


def test_squares_out_of_range_and_coarse_rows_have_none():
    x = torch.ones(3, 2, dtype=torch.float64)
    assert unformed_gram(DenseRows(1e30 * x)) is None
    assert unformed_gram(DenseRows(1e-30 * x)) is None
    assert unformed_gram(DenseRows(x.to(torch.bfloat16))) is None
    assert unformed_gram(DenseRows(0.0 * x)) is not None
