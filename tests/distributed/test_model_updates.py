"""Models as named arrays: updates, what is refused, and medians of what isn't trained."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.distributed.model_updates import GlobalModel, median_array


@pytest.fixture
def arrays():
    return {
        "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bn.running_var": np.ones(2, dtype=np.float32),
        "bn.num_batches_tracked": np.array(5, dtype=np.int64),
        "scale": np.float32([2.0]).reshape(()),
        "mask": np.array([True, False]),
    }


def test_only_floating_point_arrays_that_are_no_buffers_are_trained(arrays):
    model = GlobalModel(arrays)
    assert model.trained == ("conv.weight", "scale")
    assert model.rest == ("bn.running_var", "bn.num_batches_tracked", "mask")
    assert model.n_columns == 7
    assert GlobalModel(arrays, ()).trained == ("conv.weight", "bn.running_var", "scale")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_update_leads_back_to_what_was_sent(arrays, rng, dtype):
    arrays = arrays | {"conv.weight": arrays["conv.weight"].astype(dtype)}
    sent = arrays | {"conv.weight": rng.normal(size=(2, 3)).astype(dtype), "scale": np.array(7.0, dtype=np.float32)}
    model = GlobalModel(arrays)
    update = model.update(sent)
    assert update.dtype == (np.float64 if np.dtype(dtype).itemsize > 4 else np.float32)
    moved = model.moved(update)
    assert {name: array.dtype for name, array in moved.items()} == {name: arrays[name].dtype for name in model.trained}
    for name, array in moved.items():
        np.testing.assert_allclose(array, sent[name], atol=2e-3 if dtype == np.float16 else 2e-6)


def test_the_order_of_names_doesnt_matter(arrays):
    sent = {name: array + 1 if array.dtype.kind == "f" else array for name, array in reversed(arrays.items())}
    np.testing.assert_array_equal(GlobalModel(arrays).update(sent), np.ones(7))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, np.bool_])
def test_other_real_dtypes_are_taken(arrays, dtype):
    model = GlobalModel(arrays)
    update = model.update(arrays | {"conv.weight": np.ones((2, 3), dtype=dtype)})
    np.testing.assert_array_equal(update[:6], [1.0, 0.0, -1.0, -2.0, -3.0, -4.0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv.weight": np.zeros((3, 2), np.float32)}, r"'conv.weight' must have shape \(2, 3\); found \(3, 2\)"),
        ({"conv.weight": np.zeros((1, 2, 3), np.float32)}, "must have shape"),
        ({"conv.weight": np.zeros((), np.float32)}, "must have shape"),
        ({"scale": np.zeros(1, np.float32)}, r"must have shape \(\); found \(1,\)"),
        ({"conv.weight": np.zeros((2, 3), complex)}, "must have a dtype like float32; found complex128"),
        ({"conv.weight": np.full((2, 3), "1")}, "must have a dtype like float32; found <U1"),
        ({"conv.weight": np.zeros((2, 3), "V2")}, "must have a dtype like float32"),
        ({"conv.weight": np.zeros((2, 3), "M8[s]")}, "must have a dtype like float32"),
        ({"conv.weight": np.full((2, 3), np.nan, np.float32)}, "must be finite; found NaN or inf"),
        ({"scale": np.array(-np.inf, np.float32)}, "'scale' must be finite"),
        ({"conv.weight": np.full((2, 3), 1e300)}, "update of array 'conv.weight' must be finite in float32"),
        ({"mask": np.array([1, 0])}, "'mask' must have a dtype like bool; found int64"),
        ({"bn.num_batches_tracked": np.array(5.5)}, "must have a dtype like int64; found float64"),
        ({"other": np.zeros(2)}, "found 'other' as well"),
    ],
)
def test_what_cant_be_used_is_refused_with_the_reason(arrays, change, reason):
    with pytest.raises(ValueError, match=reason):
        GlobalModel(arrays).update(arrays | change)


def test_missing_and_many_names_are_listed_in_part(arrays):
    with pytest.raises(
        ValueError, match=r"'conv\.weight', 'bn\.running_var', 'bn\.num_batches_tracked' and 2 more missing"
    ):
        GlobalModel(arrays).update({})
    with pytest.raises(ValueError, match="and 97 more as well") as raised:
        GlobalModel(arrays).update(arrays | {"x" * 1000 + str(i): np.zeros(1) for i in range(100)})
    assert len(str(raised.value)) < 300


def test_models_are_alike_by_names_and_shapes_of_what_is_trained(arrays):
    model = GlobalModel(arrays)
    like = GlobalModel({**arrays, "mask": np.zeros(9, bool), "scale": np.array(0.0, np.float32)})
    assert model.layout == like.layout
    assert model.layout != GlobalModel({**arrays, "scale": np.zeros(2, np.float32)}).layout


def test_the_median_is_one_of_the_numbers_and_keeps_the_dtype():
    counters = [np.array(n, dtype=np.int64) for n in (2**62 + 1, 2**62 + 3, -5)]
    assert median_array(counters, np.ones(3)) == 2**62 + 1
    assert median_array(counters, np.ones(3)).dtype == np.int64
    assert median_array([np.array([True]), np.array([False]), np.array([True])], np.ones(3)).tolist() == [True]


def test_the_median_goes_by_weight():
    arrays = [np.array([[1.0, 5.0]]), np.array([[2.0, 4.0]]), np.array([[3.0, 3.0]])]
    np.testing.assert_array_equal(median_array(arrays, np.array([1.0, 1.0, 3.0])), arrays[2])
    np.testing.assert_array_equal(median_array(arrays, np.array([1.0, 0.0, 0.0])), arrays[0])
    # One without weight isn't the least that reaches half of nothing.
    np.testing.assert_array_equal(median_array(arrays, np.array([0.0, 0.0, 1.0])), arrays[2])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=12).filter(
        lambda pairs: any(count for _, count in pairs)
    ),
    st.sampled_from([1.0, 0.1, 1.0 / 3.0, 1e-20, 1e20]),
)
def test_weights_of_any_scale_count_as_repeated_clients(pairs, scale):
    repeated = sorted(number for number, count in pairs for _ in range(count))
    found = median_array([np.array([number]) for number, _ in pairs], scale * np.array([count for _, count in pairs]))
    assert found.tolist() == [repeated[(len(repeated) - 1) // 2]]


@pytest.mark.parametrize("size", [1.0, 1e-300, 1e290])
def test_large_integer_weights_are_told_apart(size):
    arrays = [np.array([1.0]), np.array([2.0])]
    assert median_array(arrays, size * np.array([2.0**40 - 1.0, 2.0**40 + 1.0])) == 2.0
    assert median_array(arrays, size * np.array([2.0**40, 2.0**40])) == 1.0
    assert median_array(arrays, np.array([1e308, 1e308])) == 1.0


def test_a_minority_of_nan_or_huge_numbers_moves_no_median():
    arrays = [np.array([1.0]), np.array([2.0]), np.array([3.0]), np.array([np.nan]), np.array([-1e300])]
    assert 1.0 <= float(median_array(arrays, np.ones(5))[0]) <= 3.0


# ---- complex arrays


COMPLEX = [(np.complex64, np.float32), (np.complex128, np.float64), (np.clongdouble, np.float64)]


@pytest.mark.parametrize(("dtype", "of_updates"), COMPLEX)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 2)])
def test_of_complex_arrays_an_update_has_the_real_and_imaginary_parts(dtype, of_updates, shape, rng):
    start, sent = (_complex(rng, shape, dtype) for _ in range(2))
    # At an odd place.
    arrays = {"a": np.zeros(3, np.float32), "z": start, "b": np.ones(2, np.float32)}
    model = GlobalModel(arrays)
    assert model.trained == ("a", "z", "b")
    update = model.update({"a": np.ones(3), "z": sent, "b": np.ones(2)})
    assert update.dtype == model.dtype == of_updates
    assert len(update) == model.n_columns == 5 + 2 * start.size
    difference = (sent - start).ravel()
    np.testing.assert_allclose(update[3:-2:2], difference.real, atol=1e-6)
    np.testing.assert_allclose(update[4:-2:2], difference.imag, atol=1e-6)
    moved = model.moved(update)
    assert moved["z"].dtype == dtype
    assert moved["z"].shape == shape
    np.testing.assert_allclose(moved["z"], sent, atol=1e-6)
    np.testing.assert_array_equal(moved["a"], np.ones(3))


def _complex(rng, shape, dtype):
    return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), dtype=dtype)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.float32, np.float64, np.int32, np.bool_])
def test_what_is_taken_for_a_complex_array(dtype):
    model = GlobalModel({"z": np.array([1.0 + 2.0j], np.complex64)})
    np.testing.assert_array_equal(model.update({"z": np.array([1], dtype)}), [0.0, -2.0])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([complex(0.0, np.nan)]), "'z' must be finite; found NaN or inf"),
        (np.array([complex(np.inf, 0.0)]), "'z' must be finite; found NaN or inf"),
        (np.array([complex(0.0, 1e300)]), "update of array 'z' must be finite in float32"),
        (np.array(["1j"]), "'z' must have a dtype like complex64; found <U2"),
        (np.array([[1j]]), "'z' must have shape"),
    ],
)
def test_complex_arrays_that_cant_be_used(array, reason):
    with pytest.raises(ValueError, match=reason):
        GlobalModel({"z": np.zeros(1, np.complex64)}).update({"z": array})


def test_complex_arrays_may_be_buffers_whose_parts_have_medians():
    model = GlobalModel({"w": np.zeros(2), "z": np.zeros(2, np.complex64)}, ("z",))
    assert (model.trained, model.rest) == (("w",), ("z",))
    arrays = [np.array([1 + 5j, 9j]), np.array([2 + 4j, 8j]), np.array([3 + 3j, 7j]), np.array([2 - 1e30j, 1e30])]
    np.testing.assert_array_equal(median_array(arrays, np.ones(4)), [2 + 3j, 7j])
    assert median_array([array.astype(np.complex64) for array in arrays], np.ones(4)).dtype == np.complex64
    np.testing.assert_array_equal(median_array([np.array(1j), np.array(2j), np.array(9.0)], np.ones(3)), 1j)


def test_real_and_complex_models_arent_alike():
    real = GlobalModel({"z": np.zeros(2, np.float32)})
    layouts = [GlobalModel({"z": np.zeros(2, dtype)}).layout for dtype in (np.complex64, np.complex128)]
    assert real.layout != layouts[0] == layouts[1]


# ---- dtypes of what isn't trained


@pytest.mark.parametrize("array", [np.zeros(2, kind) for kind in ("V2", "U1", "S1", "M8[s]", "m8[s]")], ids=str)
def test_arrays_that_hold_no_numbers_are_refused(array):
    model = GlobalModel({"w": np.zeros(3), "odd": array})
    with pytest.raises(ValueError, match="array 'odd' must hold numbers or truth values; found "):
        model.check(model.arrays)


@pytest.mark.parametrize(
    ("dtype", "sent", "expected"),
    [
        (np.float32, np.array([1.0 / 3.0, -2.0]), [np.float32(1.0 / 3.0), -2.0]),
        (np.float32, np.array([1e300, -1e300]), [np.inf, -np.inf]),
        (np.float32, np.array([np.nan, np.inf]), [np.nan, np.inf]),
        (np.float16, np.array([1e5, 0.1], np.float32), [np.inf, np.float16(0.1)]),
        (np.float32, np.array([2**60, 1]), [2.0**60, 1.0]),
        (np.float32, np.array([True, False]), [1.0, 0.0]),
        (np.float64, np.array([0.5, 1.0], np.float32), [0.5, 1.0]),
        (np.int32, np.array([2**40, -(2**40)]), [2**31 - 1, -(2**31)]),
        (np.int64, np.array([7, -7], np.int8), [7, -7]),
        (np.uint8, np.array([300, 5], np.uint16), [255, 5]),
        (np.complex64, np.array([1e300j, 2.0]), [complex(0.0, np.inf), 2.0]),
        (np.bool_, np.array([True, False]), [True, False]),
    ],
)
def test_buffers_are_converted_to_the_global_dtype_without_a_change_of_order(dtype, sent, expected):
    model = GlobalModel({"w": np.zeros(3), "buffer": np.zeros(2, dtype)}, ("buffer",))
    arrays = {"w": np.ones(3), "buffer": sent}
    model.check(arrays)
    (found,) = model.buffers_of(arrays).values()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(expected, dtype))
