"""Taking a caller's array in, and giving the answer back in kind."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from skbgmd._utils.arrays import as_matrix, as_weights


def test_no_copy_where_none_is_needed(rng):
    X = rng.normal(size=(4, 3)).astype(np.float32)
    matrix, _ = as_matrix(X)
    assert matrix.data_ptr() == X.ctypes.data
    tensor = torch.from_numpy(X)
    assert as_matrix(tensor)[0].data_ptr() == tensor.data_ptr()


def test_odd_memory_layouts(rng):
    X = rng.normal(size=(6, 4))
    for view in (X[::-1], X[:, ::-1], X[::2], X.T, np.asfortranarray(X), X.astype(">f4")):
        np.testing.assert_allclose(as_matrix(view)[0].numpy(), view)


def test_read_only_arrays_are_taken(rng):
    X = rng.normal(size=(3, 3))
    X.flags.writeable = False
    assert as_matrix(X)[0].shape == (3, 3)


def test_tensors_with_a_negative_bit_are_taken(rng):
    numbers = torch.complex(*torch.from_numpy(rng.normal(size=(2, 9, 3))))
    X, weights = numbers.conj().imag, (-1j * numbers[:, 0].abs()).conj().imag
    assert X.is_neg()
    assert weights.is_neg()
    matrix, _ = as_matrix(X)
    np.testing.assert_array_equal(matrix.numpy(), -numbers.imag.numpy())
    np.testing.assert_allclose(as_weights(weights, 9), numbers[:, 0].abs() / numbers[:, 0].abs().max())


def test_sparse_is_refused_by_name():
    with pytest.raises(TypeError, match="rows must be a dense array; found a sparse one of type csr_array"):
        as_matrix(sparse.csr_array(np.eye(3)), "rows")


@pytest.mark.parametrize(
    ("given", "dtype"), [(np.float32, np.float32), (np.int16, np.float64), (np.float16, np.float16)]
)
def test_answers_come_back_in_kind(given, dtype):
    _, caller = as_matrix(np.ones((2, 2), dtype=given))
    assert caller.convert(torch.zeros(2, dtype=torch.float64)).dtype == dtype
    assert caller.convert(np.zeros(2)).dtype == dtype


def test_weights_are_scaled_to_a_largest_of_one():
    np.testing.assert_array_equal(as_weights([1, 4, 2], 3), [0.25, 1.0, 0.5])
    np.testing.assert_array_equal(as_weights(torch.tensor([2.0, 0.0]), 2), [1.0, 0.0])
    np.testing.assert_array_equal(as_weights(None, 2), [1.0, 1.0])


def test_every_stride_torch_does_not_know(rng):
    X = rng.normal(size=(4, 3))
    records = np.zeros((4, 3), dtype=[("kind", "i1"), ("value", "f8")])
    records["value"] = X
    single = np.ones((1, 3))
    for view in (single[::-1], single.T[:, ::-1], records["value"], np.broadcast_to(X[0], (5, 3)), X[:1, ::-1]):
        np.testing.assert_array_equal(as_matrix(view)[0].numpy(), view)
    repeated = np.lib.stride_tricks.as_strided(X, (4, 2), (8, 8))
    np.testing.assert_array_equal(as_matrix(repeated)[0].numpy(), repeated)


def test_memory_maps(tmp_path, rng):
    X = np.memmap(tmp_path / "rows", dtype=np.float32, mode="w+", shape=(3, 2))
    X[:] = rng.normal(size=(3, 2))
    np.testing.assert_array_equal(as_matrix(X)[0].numpy(), X)


def test_foreign_byte_order_is_no_other_precision(rng):
    for dtype in ("f2", "f4", "f8"):
        matrix, caller = as_matrix(rng.normal(size=(3, 2)).astype(">" + dtype))
        assert matrix.numpy().dtype == np.dtype("=" + dtype) == caller.dtype


def test_masks_and_dates_are_refused(rng):
    X = rng.normal(size=(4, 2))
    masked = np.ma.masked_array(X, mask=np.eye(4, 2))
    with pytest.raises(ValueError, match="X must have no masked entries; found 2 of them"):
        as_matrix(masked)
    np.testing.assert_array_equal(as_matrix(np.ma.masked_array(X, mask=False))[0].numpy(), X)
    with pytest.raises(ValueError, match="sample_weight must have no masked entries; found 1 of them"):
        as_weights(np.ma.masked_array(np.ones(4), mask=np.arange(4) == 1), 4)
    for dtype in ("datetime64[s]", "timedelta64[s]"):
        dates = (100 * X).astype(dtype)
        for given in (dates, pd.DataFrame(dates), pd.DataFrame(X).assign(date=dates[:, 0])):
            with pytest.raises(TypeError, match="X must hold no dates or durations; found dtype"):
                as_matrix(given)
        with pytest.raises(TypeError, match="sample_weight must hold no dates or durations"):
            as_weights(dates[:, 0], 4)


def test_data_frames_that_know_missing_values(rng):
    X = rng.normal(size=(4, 2))
    frame = pd.DataFrame({"a": pd.array([1, 2, 3, 4], dtype="Int64"), "b": [1.0, 2.0, 3.0, 4.0]})
    frame["c"] = pd.array([True, False, True, True], dtype="boolean")
    np.testing.assert_array_equal(as_matrix(frame)[0].numpy(), frame.to_numpy(dtype=float))
    np.testing.assert_array_equal(as_matrix(pd.DataFrame(X, dtype="Float64"))[0].numpy(), X)
    np.testing.assert_array_equal(as_weights(pd.Series([1, 2, 4], dtype="Int64"), 3), [0.25, 0.5, 1.0])
    frame.loc[2, "a"] = pd.NA
    assert bool(as_matrix(frame)[0][2, 0].isnan())
    with pytest.raises(ValueError, match="sample_weight must be finite; found nan"):
        as_weights(pd.Series([1, None, 4], dtype="Int64"), 3)
    with pytest.raises(ValueError, match="X must have no missing values; found NA"):
        as_matrix(frame.astype(object))
    with pytest.raises(TypeError, match="real numbers; found dtype object"):
        as_matrix(frame.fillna(1).astype(object))


def test_what_float64_loses_of_rows():
    exact = np.array([[2**60, 1], [2**53 + 1, 0]])
    for X in (exact, torch.from_numpy(exact)):
        np.testing.assert_array_equal(as_matrix(X)[1].lost(), [0.0, 1.0])
        np.testing.assert_array_equal(as_matrix(X)[1].lost(np.array([1])), [0.0, 0.0])
    assert as_matrix(exact // 2**20)[1].lost() is None
    assert as_matrix(np.ones((2, 2), dtype=np.longdouble))[1].lost() is None
    if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        third = np.full((2, 2), 1, dtype=np.longdouble) / 3
        assert 0.0 < as_matrix(third)[1].lost().max() < 2.0**-53
        with pytest.raises(ValueError, match=r"X must hold numbers that float64 has; found 1\S*e\+4000"):
            as_matrix(third * 3 * np.longdouble("1e4000"))


def test_weights_of_every_dtype():
    for given in (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), np.array([1, 2], dtype=">f4")):
        np.testing.assert_array_equal(as_weights(given, 2), [0.5, 1.0])
    np.testing.assert_array_equal(as_weights([5e-324, 5e-324], 2), [1.0, 1.0])


def test_weights_that_are_nothing_beside_others():
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(as_weights([1e-300, 1e300, 0.0], 3), [0.0, 1.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_sequences_of_tensors(dtype, requires_grad):
    rows = [torch.tensor([1.0, 2.0], dtype=dtype, requires_grad=requires_grad), torch.tensor([3.0, 4.0], dtype=dtype)]
    for given in (rows, tuple(rows), [list(row) for row in rows]):
        matrix, _ = as_matrix(given)
        assert matrix.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert not matrix.requires_grad
    np.testing.assert_array_equal(as_weights([row.sum() for row in rows], 2), [3 / 7, 1.0])


def test_tensors_in_a_sequence_that_have_no_data_are_named():
    with pytest.raises(ValueError, match="X must have data"):
        as_matrix([torch.ones(2), torch.ones(2, device="meta")])
    with pytest.raises(TypeError, match="X must be a dense tensor"):
        as_matrix([torch.ones(2).to_sparse(), torch.ones(2)])
