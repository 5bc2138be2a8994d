"""Data frames and columns of pandas, polars, pyarrow and narwhals around them, as X, y, weights and ids."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import DataConversionWarning
from sklearn.naive_bayes import GaussianNB

from frames import (
    COUNT,
    DAYS,
    FRAMES,
    LARGE,
    SIZE,
    TEXT,
    USES,
    Linear,
    N,
    Y,
    classifier,
    of_narwhals,
    of_pandas,
    of_polars,
    of_pyarrow,
)
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier, geometric_median
from skbgmd._utils.frames import as_frame, dtype_of, without_mask
from skbgmd.corruption import GaussianNoise, LabelCorruption
from skbgmd.inspection import robustness_curve, sample_losses

# predict is tried with tables, after arrays.
pytestmark = pytest.mark.filterwarnings("ignore:X has feature names, but")


@FRAMES
def test_columns_have_names_and_dtypes(frame_of):
    frame = as_frame(frame_of({"size": SIZE, "color": TEXT}))
    assert list(frame.names) == ["size", "color"]
    assert len(frame.dtypes) == 2
    assert list(map(str, np.asarray(frame.column(1)))) == TEXT
    assert [str(dtype_of(column)) for _, column in frame] == list(map(str, frame.dtypes))


@pytest.mark.parametrize(
    "other", [[[1.0]], np.ones((2, 2)), torch.ones(2), pd.Series([1]), pd.Index([1]), "text", None]
)
def test_all_else_is_no_frame(other):
    assert as_frame(other) is None


@FRAMES
def test_numbers_are_those_of_an_array(frame_of):
    table, array = frame_of({"size": SIZE, "count": COUNT}), np.c_[SIZE, COUNT]
    np.testing.assert_array_equal(geometric_median(table), geometric_median(array))
    for module in (None, Linear):
        fitted, plain = classifier(module).fit(table, Y), classifier(module).fit(array, Y)
        np.testing.assert_array_equal(fitted.predict_proba(table), plain.predict_proba(array))
    several = classifier(Linear).fit({"table": table}, Y)
    np.testing.assert_array_equal(several.predict_proba({"table": table}), plain.predict_proba(array))
    noise = GaussianNoise(fraction=0.25, random_state=0)
    np.testing.assert_array_equal(noise.fit_transform(table), noise.fit_transform(array))


@pytest.mark.parametrize("frame_of", [of_pandas, of_polars, of_pyarrow])
def test_names_are_those_of_the_columns(frame_of):
    table, other = (frame_of(dict.fromkeys(names, SIZE)) for names in (("size", "width"), ("width", "size")))
    fitted = classifier().fit(table, Y)
    assert fitted.feature_names_in_.tolist() == ["size", "width"]
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(other)
    several = classifier(Linear).fit({"table": table}, Y)
    with pytest.raises(ValueError, match=r"X\['table'\] must have the columns that it had in fit, size, width"):
        several.predict({"table": other})


@pytest.mark.parametrize("frame_of", [of_polars, of_pyarrow])
@pytest.mark.parametrize(
    "held",
    [[None, *SIZE[1:].tolist()], [None, *COUNT[1:].tolist()], [None, *(COUNT[1:] > 2).tolist()], [None] * N],
    ids=["floats", "integers", "booleans", "nothing"],
)
@USES
def test_missing_values_are_nan(frame_of, held, use):
    table = frame_of({"size": SIZE, "held": held})
    with pytest.raises(ValueError, match=r"contains NaN|found NaN at row 0, column 1|y must have no missing values"):
        use(table)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "int64[pyarrow]", "double[pyarrow]", "bool[pyarrow]"])
def test_nullable_columns_are_numbers(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    table = pd.DataFrame({"size": SIZE, "held": pd.array(COUNT > 2, dtype="bool").astype(dtype)})
    np.testing.assert_array_equal(geometric_median(table), geometric_median(np.c_[SIZE, COUNT > 2]))
    assert classifier(Linear).fit(table, Y).score(table, Y) >= 0.0
    table.loc[3, "held"] = pd.NA
    with pytest.raises(ValueError, match="contains NaN"):
        classifier().fit(table, Y)
    with pytest.raises(ValueError, match="found NaN at row 3, column 1"):
        geometric_median(table)


def test_decimals_are_numbers():
    decimals = [Decimal(int(count)) / 4 for count in COUNT]
    for frame_of in (of_polars, of_pyarrow):
        found = geometric_median(frame_of({"size": SIZE, "held": decimals}))
        np.testing.assert_allclose(found, geometric_median(np.c_[SIZE, COUNT / 4]))


def test_an_odd_index_says_nothing():
    table, labels = pd.DataFrame({"size": SIZE, "width": COUNT}), pd.Series(TEXT)
    plain = classifier().fit(table, labels).predict_proba(table)
    table.index, labels.index = [7] * N, DAYS
    np.testing.assert_array_equal(classifier().fit(table, labels).predict_proba(table), plain)


@pytest.mark.parametrize("frame_of", [of_polars, of_narwhals])
@USES
def test_what_isn_t_in_memory_is_refused(frame_of, use):
    with pytest.raises(TypeError, match=r"must be data in memory; found a LazyFrame\. Give .*\.collect\(\)"):
        use(frame_of({"size": SIZE, "count": COUNT}).lazy())


@pytest.mark.parametrize("frame_of", [of_polars, of_pyarrow, of_narwhals])
def test_nets_say_what_they_take(frame_of):
    table, net = frame_of({"size": SIZE, "count": COUNT}), RobustNeuralNetClassifier(Linear, max_epochs=1, verbose=0)
    column = as_frame(table).column(0)
    for X, y, name in ((table, Y, "X"), ({"table": table}, Y, "X"), (np.c_[SIZE, COUNT], column, "y")):
        with pytest.raises(TypeError, match=rf"^{name} must be .* for a net; found a \w+ of (polars|pyarrow|narwhals)"):
            net.fit(X, y)


@pytest.mark.parametrize("frame_of", [of_pandas, of_polars, of_pyarrow])
@pytest.mark.filterwarnings("error")
def test_corrupt_rows_have_the_names_of_clean_ones(frame_of):
    settings = {
        "corruption": GaussianNoise(),
        "fractions": [0.0, 0.2],
        "cv": 2,
        "random_state": 0,
        "error_score": "raise",
    }
    table = frame_of({"size": SIZE, "count": COUNT})
    found, plain = (robustness_curve(GaussianNB(), X, Y, **settings) for X in (table, np.c_[SIZE, COUNT]))
    np.testing.assert_array_equal(found[2], plain[2])


@pytest.mark.parametrize("frame_of", [of_pandas, of_polars, of_pyarrow])
def test_samplers_of_labels_take_any_columns(frame_of):
    table = frame_of({"size": SIZE, "color": TEXT, "day": DAYS})
    sampler = LabelCorruption(fraction=0.25, random_state=0)
    found, _ = sampler.fit_resample(table, Y)
    assert found is table
    assert sampler.feature_names_in_.tolist() == ["size", "color", "day"]
    with pytest.raises(ValueError, match="X must have at least one sample; found none"):
        sampler.fit(table[:0], Y[:0])


LABELS = {
    "Int64": pd.Series(LARGE, dtype="Int64"),
    "UInt64": pd.Series(LARGE, dtype="UInt64"),
    "boolean": pd.Series(Y == 1, dtype="boolean"),
    "categories": pd.Series(LARGE).astype("category"),
    "categories, boolean": pd.Series(Y == 1).astype("category"),
    "categories, nullable": pd.Series(LARGE, dtype="Int64").astype("category"),
    "array": pd.array(LARGE, dtype="Int64"),
    "index": pd.Index(LARGE, dtype="Int64"),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_nullable_labels_keep_their_dtype(labels):
    plain = np.array(list(labels))
    array = without_mask(labels)
    np.testing.assert_array_equal(array, plain)
    X = np.c_[SIZE + 4.0 * Y, COUNT]
    fitted = BlockGMDClassifier(max_epochs=2, random_state=0).fit(X, labels)
    np.testing.assert_array_equal(fitted.classes_, np.unique(plain))
    assert fitted.classes_.dtype.kind == array.dtype.kind == plain.dtype.kind.replace("i", array.dtype.kind)
    assert fitted.score(X, labels) == np.mean(fitted.predict(X) == array)
    np.testing.assert_array_equal(sample_losses(fitted, X, labels), sample_losses(fitted, X, array))
    begun = classifier().partial_fit(X, labels, classes=np.unique(plain))
    np.testing.assert_array_equal(begun.partial_fit(X, labels).classes_, np.unique(plain))


def test_nullable_columns_of_labels_keep_their_dtype():
    X, labels = np.c_[SIZE, COUNT], pd.DataFrame({"y": pd.array(LARGE, dtype="Int64")})
    with pytest.warns(DataConversionWarning):
        assert classifier().fit(X, labels).classes_.tolist() == np.unique(LARGE).tolist()
    several = pd.DataFrame({"one": pd.array(Y == 1, dtype="boolean"), "other": pd.array(Y == 0, dtype="boolean")})
    fitted, plain = classifier().fit(X, several), classifier().fit(X, np.c_[Y, 1 - Y])
    assert fitted.score(X, several) == plain.score(X, np.c_[Y, 1 - Y])
    np.testing.assert_array_equal(sample_losses(fitted, X, several), sample_losses(plain, X, np.c_[Y, 1 - Y]))


def test_nullable_ids_are_told_apart():
    ids = pd.Series(2**53 + np.arange(N) % 4, dtype="Int64")
    X = np.c_[SIZE, COUNT]
    few, plain = (classifier().fit(X, Y, clients=given) for given in (ids, ids.to_numpy(dtype=np.int64)))
    np.testing.assert_array_equal(few.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize("labels", [[*LARGE[1:], None], [*(Y[1:] == 1), None]], ids=["integers", "booleans"])
def test_missing_labels_are_refused(labels):
    series = pd.Series(labels, dtype="Int64" if labels[0] > 1 else "boolean")
    assert without_mask(series) is series
    with pytest.raises(ValueError, match=f"y must have no missing values; found None, NA or NaN at position {N - 1}"):
        classifier().fit(np.c_[SIZE, COUNT], series)


@pytest.mark.parametrize("frame_of", [of_polars, of_pyarrow])
def test_columns_are_labels_targets_weights_and_ids(frame_of):
    X = np.c_[SIZE, COUNT]
    table = as_frame(frame_of({"y": LARGE, "text": TEXT, "weight": 1.0 + COUNT}))
    y, text, weight = (column for _, column in table)
    np.testing.assert_array_equal(classifier().fit(X, y).classes_, np.unique(LARGE))
    assert classifier().fit(X, text).classes_.tolist() == ["green", "red"]
    plain = BlockGMDRegressor(max_epochs=1, random_state=0).fit(X, 1.0 + COUNT, sample_weight=1.0 + COUNT)
    fitted = BlockGMDRegressor(max_epochs=1, random_state=0).fit(X, weight, sample_weight=weight)
    np.testing.assert_array_equal(fitted.predict(X), plain.predict(X))
    assert fitted.score(X, weight, sample_weight=weight) == plain.score(X, 1.0 + COUNT, sample_weight=1.0 + COUNT)
    np.testing.assert_array_equal(
        geometric_median(X, sample_weight=weight), geometric_median(X, sample_weight=1.0 + COUNT)
    )
    by_text = classifier().fit(X, Y, clients=text)
    np.testing.assert_array_equal(by_text.predict_proba(X), classifier().fit(X, Y, clients=TEXT).predict_proba(X))
    with pytest.raises(TypeError, match=r"^sample_weight must hold real numbers; found 'red'\.$"):
        geometric_median(X, sample_weight=text)
