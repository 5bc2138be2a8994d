"""A layer's columns: all answers are those of the matrix, whichever units' weights and biases are left out."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd.ghost.layer_columns import LayerColumns, squared_norms

START, N_BEHIND = 2, 3


def columns_of(kind: str) -> tuple[LayerColumns, np.ndarray]:
    """A layer of five inputs and four outputs, or of some of its units' columns, and the matrix."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(7, 4)), rng.normal(size=(7, 5))
    of_weights = left if kind in ("whole", "weights alone") else left[:, [0, 3]] if kind == "some" else left[:, :0]
    of_biases = left if kind in ("whole", "biases alone") else left[:, [1, 2, 3]] if kind == "some" else left[:, :0]
    columns = LayerColumns(START, of_weights, of_biases, right, squared_norms(right))
    weights = (of_weights[:, :, None] * right[:, None]).reshape(7, -1)
    return columns, np.concatenate([weights, of_biases], axis=1)


@pytest.mark.parametrize("kind", ["whole", "some", "weights alone", "biases alone"])
def test_answers_are_those_of_the_matrix(kind: str) -> None:
    columns, matrix = columns_of(kind)
    assert (columns.n_rows, columns.n_columns) == matrix.shape
    assert columns.is_whole == (kind == "whole")
    np.testing.assert_allclose(columns.squares(), squared_norms(matrix))
    np.testing.assert_allclose(columns.gram(), matrix @ matrix.T)
    vector = np.arange(START + columns.n_columns + N_BEHIND, dtype=float)
    inside = slice(START, START + columns.n_columns)
    np.testing.assert_allclose(columns.inner_products(vector), matrix @ vector[inside])
    line, out = np.linspace(-1.0, 1.0, 7), np.zeros(len(vector))
    columns.write_sum(line, out)
    np.testing.assert_allclose(out[inside], line @ matrix, atol=1e-12)
    assert not out[:START].any()
    assert not out[inside.stop :].any()
    index = np.array([5, 1])
    np.testing.assert_array_equal(np.concatenate(columns.written(index), axis=1), matrix[index])
    np.testing.assert_allclose(columns.at(index).gram(), matrix[index] @ matrix[index].T)


@pytest.mark.parametrize("units", [[], [1, 3]], ids=str)
def test_some_units_weights_are_summed_by_other_factors(units: list[int]) -> None:
    columns, matrix = columns_of("whole")
    line, on_block, out = np.linspace(-1.0, 1.0, 7), np.linspace(2.0, 3.0, 7), np.zeros(START + 24)
    chosen = np.array(units, dtype=np.int64)
    columns.write_sum_by_block(line, on_block, chosen, columns.left[:, chosen], out)
    expected = line @ matrix
    for unit in units:
        expected[5 * unit : 5 * unit + 5] = on_block @ matrix[:, 5 * unit : 5 * unit + 5]
    np.testing.assert_allclose(out[START:], expected, atol=1e-12)
