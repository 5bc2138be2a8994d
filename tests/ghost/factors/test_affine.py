"""Factors of a layer's weights and bias as one, against the rows written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.ghost.factors import AffineFactor, DenseFactor, OuterProductFactor, with_biases, without_biases


def made(n, units, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(n, units, generator=generator, dtype=torch.float64)
    right = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return AffineFactor(left, right), torch.cat([(left[:, :, None] * right[:, None]).flatten(1), left], dim=1)


sizes = st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))


@given(sizes)
def test_answers_are_those_of_the_rows(size):
    factor, rows = made(*size)
    n, units, _, seed = size
    generator = torch.Generator().manual_seed(seed + 1)
    weights, vector = (torch.randn(m, generator=generator, dtype=torch.float64) for m in (n, factor.n_columns))
    torch.testing.assert_close(factor.gram(), rows @ rows.T)
    torch.testing.assert_close(factor.squared_norms(), rows.square().sum(dim=1))
    torch.testing.assert_close(factor.inner_products(vector), rows @ vector)
    out = torch.full_like(vector, torch.nan)
    factor.weighted_sum(weights, out)
    torch.testing.assert_close(out, weights @ rows)
    added = vector.clone()
    factor.add_to(added, weights)
    torch.testing.assert_close(added, vector + weights @ rows)
    some = torch.arange(0, n, 2)
    torch.testing.assert_close(factor.rows(some).products(factor), rows[some] @ rows.T)
    of_columns = weights @ rows.square()
    starts = np.concatenate([np.arange(units) * factor.width, units * factor.width + np.arange(units)])
    np.testing.assert_allclose(factor.unit_scores(weights).numpy(), np.add.reduceat(of_columns.numpy(), starts))


@given(sizes, st.data())
def test_blocks_of_units(size, data):
    factor, rows = made(*size)
    n, units, width, _ = size
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, 2 * units - 1), min_size=1))))
    columns = np.concatenate(
        [np.arange(u * width, (u + 1) * width) if u < units else [units * (width - 1) + u] for u in chosen]
    )
    written = torch.cat([part.explicit(slice(0, part.n_units)) for part in factor.units(chosen)], dim=1)
    torch.testing.assert_close(written, rows[:, columns])
    both = torch.rand(n, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    out = torch.full((factor.n_columns,), torch.nan, dtype=torch.float64)
    factor.weighted_sum_by_block(both, chosen, out)
    expected = both[:, 0] @ rows
    expected[columns] = (both[:, 1] @ rows)[columns]
    torch.testing.assert_close(out, expected)


def test_joined_and_parted_again():
    factor, rows = made(5, 3, 4)
    other = DenseFactor(torch.ones(5, 2, dtype=torch.float64))
    parted = without_biases([(2, factor), (17, other)])
    assert [(start, type(part)) for start, part in parted] == [
        (2, OuterProductFactor),
        (14, DenseFactor),
        (17, DenseFactor),
    ]
    joined = with_biases(parted)
    assert [(start, type(part)) for start, part in joined] == [(2, AffineFactor), (17, DenseFactor)]
    torch.testing.assert_close(joined[0][1].gram(), rows @ rows.T)
    assert with_biases([(2, factor), (17, other)])[0][1] is factor


@pytest.mark.parametrize("gap", [0, 1])
def test_others_are_not_joined(gap):
    left, right = torch.randn(5, 3, generator=torch.Generator()), torch.ones(5, 4)
    weight = OuterProductFactor(left[:, None], right[:, None])
    for bias in (DenseFactor(left.clone()), DenseFactor(left[:, :2]), weight):
        assert len(with_biases([(0, weight), (12 + gap, bias)])) == 2
    assert len(with_biases([(0, weight), (12 + gap, DenseFactor(left))])) == 1 + gap
