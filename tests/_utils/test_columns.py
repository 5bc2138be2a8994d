"""Errors that name the column in which something isn't a number."""

from datetime import date

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix, dok_matrix

import frames
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, geometric_median
from skbgmd._utils.columns import find_odd, naming_columns
from skbgmd.aggregators import Zeno
from skbgmd.corruption import ImpulseNoise

# predict is tried with tables, after arrays.
pytestmark = pytest.mark.filterwarnings("ignore:X has feature names, but")

N = 40
NUMBERS, TEXT = np.arange(N, dtype=float), np.tile(["red", "green"], N // 2)
TABLES = {
    "text": pd.DataFrame({"size": NUMBERS, "color": TEXT}),
    "strings": pd.DataFrame({"size": NUMBERS, "color": pd.array(TEXT, dtype="string")}),
    "category": pd.DataFrame({"size": NUMBERS, "color": pd.Categorical(TEXT)}),
    "strings and NA": pd.DataFrame(
        {"size": NUMBERS, "color": pd.array([pd.NA, *TEXT[:1], *TEXT[:-2]], dtype="string")}
    ),
    "one entry": pd.DataFrame({"size": NUMBERS, "color": [1.5] * (N - 1) + ["red"]}),
}
X, Y = np.column_stack([NUMBERS, NUMBERS]), np.tile([0, 1], N // 2)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "use",
    [
        lambda table: BlockGMDClassifier(max_epochs=1).fit(table, Y),
        lambda table: BlockGMDRegressor(max_epochs=1).partial_fit(table, NUMBERS),
        lambda table: BlockGMDClassifier(max_epochs=1).fit(pd.DataFrame(X, columns=table.columns), Y).predict(table),
        geometric_median,
    ],
    ids=["fit", "partial_fit", "predict", "geometric_median"],
)
def test_text_is_refused_with_its_column(table, use):
    with pytest.raises((TypeError, ValueError), match=r"X must hold .*numbers; found 'red' in column 'color'"):
        use(table)


@pytest.mark.parametrize("array", [np.column_stack([NUMBERS.astype(object), TEXT]), np.column_stack([X, TEXT])])
def test_columns_of_arrays_are_numbered(array):
    with pytest.raises(ValueError, match=f"found 'red' in column {array.shape[1] - 1}. Make numbers of text"):
        BlockGMDClassifier(max_epochs=1).fit(array, Y)


def test_corruption_names_the_column():
    with pytest.raises(ValueError, match="X must hold numbers; found 'red' in column 'color'"):
        ImpulseNoise().fit_transform(TABLES["text"])


def test_inputs_with_names_are_named():
    with pytest.raises(ValueError, match=r"X\['second'\] must hold numbers; found 'red' in column 'color'"):
        BlockGMDClassifier(torch.nn.Identity, max_epochs=1).fit({"first": NUMBERS, "second": TABLES["text"]}, Y)


def test_columns_may_share_a_name():
    assert find_odd(pd.DataFrame([[1.0, "2"], [3.0, "red"]], columns=["color", "color"])) == ("color", "red")


def test_text_that_is_a_number_is_one():
    table = pd.DataFrame({"size": NUMBERS, "color": NUMBERS.astype(str)})
    assert find_odd(table) is None
    BlockGMDClassifier(max_epochs=1).fit(table, Y)


def test_dates_are_refused_with_their_column():
    table = pd.DataFrame({"size": NUMBERS, "day": pd.date_range("2020-01-01", periods=N)})
    with pytest.raises(TypeError, match=r"no dates or durations; found dtype datetime64\[\w+\] in column 'day'"):
        BlockGMDClassifier(max_epochs=1).fit(table, Y)


@pytest.mark.parametrize("entry", [(1, 2), {"a": 1}, pd.Interval(0, 1)])
def test_other_objects_are_refused_with_their_column(entry):
    table = pd.DataFrame({"size": NUMBERS, "color": pd.Series([1.0, *[entry] * (N - 1)], dtype=object)})
    with pytest.raises((TypeError, ValueError), match=r"X must hold numbers; found .* in column 'color': "):
        BlockGMDClassifier(max_epochs=1).fit(table, Y)


def test_missing_numbers_in_text_are_named():
    numbers = pd.array(["1.5", pd.NA] * (N // 2), dtype="string")
    table = pd.DataFrame({"size": NUMBERS, "color": numbers})
    with pytest.raises(TypeError, match="X must hold numbers; found <NA> in column 'color': "):
        BlockGMDClassifier(max_epochs=1).fit(table, Y)


def test_names_are_looked_at_first():
    fitted = BlockGMDClassifier(max_epochs=1).fit(pd.DataFrame(X, columns=["size", "weight"]), Y)
    with pytest.raises(ValueError, match="feature names should match those that were passed during fit"):
        fitted.predict(TABLES["text"])


def test_text_among_targets_and_weights_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^y must hold numbers; found 'red'\.$"):
        BlockGMDRegressor(max_epochs=1).fit(X, TEXT)
    with pytest.raises(ValueError, match=r"^sample_weight must hold numbers; found 'red'\.$"):
        BlockGMDClassifier(max_epochs=1).fit(X, Y, sample_weight=TEXT)
    with pytest.raises(TypeError, match="y must be an array of targets, in the order of the samples; found a dict"):
        BlockGMDClassifier(max_epochs=1).fit(X, dict(enumerate(Y)))


@pytest.mark.parametrize("kind", ["Datetime", "Date", "Duration", "Time"])
def test_dates_of_polars_are_no_numbers(kind):
    pl = pytest.importorskip("polars")
    dates = pl.Series("day", range(N)).cast(getattr(pl, kind))
    table = pl.DataFrame({"size": NUMBERS}).with_columns(dates)
    for use in (
        lambda: BlockGMDClassifier(max_epochs=1).fit(table, Y),
        lambda: geometric_median(table),
        lambda: ImpulseNoise().fit(table),
    ):
        with pytest.raises(TypeError, match=r"X must hold no dates or durations; found dtype .* in column 'day'"):
            use()
    with pytest.raises(TypeError, match="y must hold no dates or durations"):
        BlockGMDRegressor(max_epochs=1).fit(X, dates)
    with pytest.raises(TypeError, match="sample_weight must hold no dates or durations"):
        BlockGMDRegressor(max_epochs=1).fit(X, NUMBERS, sample_weight=dates)


def test_columns_of_polars_have_names():
    pl = pytest.importorskip("polars")
    with pytest.raises(ValueError, match="found 'red' in column 'color'"):
        BlockGMDClassifier(max_epochs=1).fit(pl.DataFrame({"size": NUMBERS, "color": TEXT}), Y)
    with pytest.raises(ValueError, match="y must have no missing values; found None, NA or NaN at position 1"):
        BlockGMDClassifier(max_epochs=1).fit(X, pl.Series(["a", None] * (N // 2)))


def test_dictionaries_of_keys_are_sparse_matrices():
    indicators = np.column_stack([Y, 1 - Y])
    fitted = BlockGMDClassifier(max_epochs=2, random_state=0).fit(dok_matrix(X), dok_matrix(indicators))
    plain = BlockGMDClassifier(max_epochs=2, random_state=0).fit(csr_matrix(X), csr_matrix(indicators))
    np.testing.assert_array_equal(fitted.predict_proba(dok_matrix(X)), plain.predict_proba(csr_matrix(X)))


def test_scores_need_targets():
    for model, y in ((BlockGMDClassifier(max_epochs=1), Y), (BlockGMDRegressor(max_epochs=1), NUMBERS)):
        with pytest.raises(ValueError, match="y must be given, unless X is a Dataset that holds it; found None"):
            model.fit(X, y).score(X)


def test_other_errors_stay_what_they_are():
    with pytest.raises(ValueError, match=r"^something else$"), naming_columns(X):
        raise ValueError("something else")


@frames.FRAMES
@frames.USES
@pytest.mark.parametrize(
    ("column", "found"),
    [
        (frames.TEXT, "numbers; found 'red' in column 'color'"),
        (frames.DAYS, "no dates or durations; found dtype .* in column 'color'"),
        (frames.DAYS - frames.DAYS[0], "no dates or durations; found dtype .* in column 'color'"),
    ],
    ids=["text", "dates", "durations"],
)
def test_what_is_no_number_is_named_with_its_column(frame_of, use, column, found):
    table = frame_of({"size": frames.SIZE, "color": column})
    with pytest.raises((TypeError, ValueError), match=rf"^(X|y|X\['table'\]) must hold (real )?{found}"):
        use(table)


@frames.FRAMES
@pytest.mark.parametrize("use", frames.AS_X.values(), ids=frames.AS_X)
def test_columns_of_lists_are_named(frame_of, use):
    table = frame_of({"size": frames.SIZE, "color": [[1, 2]] * frames.N})
    with pytest.raises((TypeError, ValueError), match=r"found .*\[1, 2\].* in column 'color'"):
        use(table)


@frames.USES
def test_dates_among_objects_are_named_with_their_column(use):
    table = pd.DataFrame({"size": frames.SIZE, "day": [date(2020, 1, 1)] * frames.N})
    with pytest.raises(TypeError, match=r"no dates or durations; found datetime.date\(2020, 1, 1\) in column 'day'"):
        use(table)


@pytest.mark.parametrize(
    "values", [pd.Categorical(frames.TEXT), pd.interval_range(0, frames.N)], ids=["category", "interval"]
)
@frames.USES
def test_objects_of_pandas_are_named_with_their_column(use, values):
    with pytest.raises((TypeError, ValueError), match=r"found .* in column 'kind'"):
        use(pd.DataFrame({"size": frames.SIZE, "kind": values}))


@frames.FRAMES
def test_trusted_samples_are_named_with_their_column(frame_of):
    def fit(columns):
        zeno = Zeno(trusted=(frame_of(columns), frames.Y))
        return BlockGMDClassifier(aggregator=zeno, group_size=8, max_epochs=1).fit(
            np.c_[frames.SIZE, frames.COUNT], frames.Y
        )

    assert fit({"size": frames.SIZE, "count": frames.COUNT}).n_features_in_ == 2
    with pytest.raises(TypeError, match="trusted must hold real numbers; found 'red' in column 'color'"):
        fit({"size": frames.SIZE, "color": frames.TEXT})
    with pytest.raises(TypeError, match=r"trusted must hold no dates or durations; found dtype .* in column 'day'"):
        fit({"size": frames.SIZE, "day": frames.DAYS})


def test_columns_of_several_levels_are_named():
    table = pd.DataFrame({("body", "size"): frames.SIZE, ("body", "color"): frames.TEXT})
    with pytest.raises(ValueError, match=r"found 'red' in column \('body', 'color'\)"):
        frames.classifier().fit(table, frames.Y)
    numbers = frames.classifier().fit(table[[("body", "size")]], frames.Y)
    assert not hasattr(numbers, "feature_names_in_")
