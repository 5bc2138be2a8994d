"""The robust regressor: scaled targets, chunks of them, gross outliers."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array, csr_matrix

from nets import Narrow
from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.aggregators import NonFiniteRowsError
from skbgmd.training import regressor


def test_regression(line):
    X, y = line
    for scale in (1e-9, 1.0, 1e9):
        model = BlockGMDRegressor(max_epochs=60, random_state=0, lr=0.02).fit(X, scale * y)
        assert model.score(X, scale * y) > 0.95
    both = BlockGMDRegressor(max_epochs=60, random_state=0, lr=0.02).fit(X, np.column_stack([y, -1e3 * y]))
    assert both.predict(X).shape == (200, 2)
    assert both.score(X, np.column_stack([y, -1e3 * y])) > 0.95
    one = BlockGMDRegressor(max_epochs=2, random_state=0).fit(X, y[:, None])
    assert one.predict(X).shape == (200, 1)
    constant = BlockGMDRegressor(max_epochs=200, random_state=0).fit(X, np.full(200, 7.0))
    np.testing.assert_allclose(constant.predict(X), 7.0, atol=0.5)
    parts = BlockGMDRegressor(random_state=0).partial_fit(X, y)
    with pytest.raises(ValueError, match="y must have 1 columns, as before; found 2"):
        parts.partial_fit(X, np.column_stack([y, y]))


def test_gross_outliers_in_regression(line):
    X, y = line
    wrong = np.arange(200) % 10 < 3
    spoilt = np.where(wrong, 1e4, y)
    robust = BlockGMDRegressor(max_epochs=40, lr=0.03, random_state=0).fit(X, spoilt)
    plain = BlockGMDRegressor(group_size=None, max_epochs=40, lr=0.03, random_state=0).fit(X, spoilt)
    assert robust.score(X, y) > 0.8
    assert plain.score(X, y) < 0.5
    assert robust.sample_trust_[wrong].max() < robust.sample_trust_[~wrong].mean()
    for gross in (1e100, 1e200, 1e300):
        spoilt[wrong] = gross
        again = BlockGMDRegressor(max_epochs=40, lr=0.03, random_state=0).fit(X, spoilt)
        assert again.score(X, y) > 0.8
        assert again.strength_ == robust.strength_


@pytest.mark.parametrize(("of_zeros", "percent"), [(0.6, 15), (0.65, 15), (0.72, 15), (0.6, 30), (0.65, 30)])
@pytest.mark.parametrize("one_sided", [False, True])
def test_gross_targets_beside_many_zeros_are_distrusted(of_zeros, percent, one_sided):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(600, 4))
    z = X[:, 0] + X[:, 1]
    y = np.maximum(z - np.quantile(z, of_zeros), 0.0)
    spoilt = y.copy()
    wrong = rng.permutation(600)[: 6 * percent]
    spoilt[wrong] += (
        20.0
        * y.std()
        * (1.0 + rng.random(len(wrong)))
        * (1.0 if one_sided else rng.choice((-1.0, 1.0), size=len(wrong)))
    )
    model = BlockGMDRegressor(max_epochs=100, random_state=0).fit(X, spoilt)
    assert model.strength_ == "firm"
    assert model.score(X, y) > 0.99


def test_a_subgroup_is_not_given_up_on_clean_data(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    marked = np.arange(500) % 12 == 0
    X[marked, 0] += 2.0
    y = np.where(marked, -3.0, 1.0) * X[:, 1] + X[:, 2] + 0.1 * rng.normal(size=500)
    model = BlockGMDRegressor(max_epochs=60, lr=0.02, hidden_layer_sizes=(20,), batch_size=50, random_state=0)
    assert model.fit(X, y).strength_ == "mild"
    both = regressor.error_scores
    monkeypatch.setattr(regressor, "error_scores", lambda *given: both(*given)[:1])
    assert model.fit(X, y).strength_ == "firm"


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_divergence_says_so(line):
    model = BlockGMDRegressor(max_epochs=50, optimizer=torch.optim.SGD, criterion=torch.nn.MSELoss, lr=1e20)
    with pytest.raises(NonFiniteRowsError, match=r"In epoch \d the loss MSELoss is not finite.* A smaller lr"):
        model.fit(*line)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_targets_that_come_bit_by_bit(line, chunk):
    """The first ones may not tell how they are spread."""
    X, y = line
    y = 40.0 * y + 300.0
    settings = {"lr": 0.02, "random_state": 0, "hidden_layer_sizes": (20,)}
    model = BlockGMDRegressor(**settings)
    for start in range(0, 200, chunk):
        model.partial_fit(X[start : start + chunk], y[start : start + chunk])
    whole = BlockGMDRegressor(**settings, max_epochs=1, batch_size=chunk).fit(X, y)
    assert model.score(X, y) > min(0.95, whole.score(X, y)) - 0.02
    assert model.n_iter_ == 200 // chunk
    assert model._provisional is None
    center = model._center
    assert model.partial_fit(1e3 + X, 1e3 * y)._center is center


@pytest.mark.parametrize("first", ["one", "equal", "fit", "two columns"])
def test_first_targets_without_a_spread(line, first):
    X, y = line
    y = 40.0 * y + 300.0
    y = np.stack([y, -1e4 * y], axis=1) if first == "two columns" else y
    model = BlockGMDRegressor(lr=0.02, random_state=0, hidden_layer_sizes=(20,), max_epochs=3)
    given = X[:40].copy(), np.full((40, *y.shape[1:]), 5.0)
    if first == "one":
        given = given[0][:1], y[:1]
    (model.fit if first == "fit" else model.partial_fit)(*given)
    assert model.predict(X[:3]) == pytest.approx(np.full((3, *y.shape[1:]), given[1][0]), abs=3.0)
    given[0][:] = np.nan  # the caller's, to use again
    model = pickle.loads(pickle.dumps(model))
    for _ in range(100):
        model.partial_fit(X, y)
    assert model.score(X, y) > 0.96
    assert model.n_iter_ == 100 + (3 if first == "fit" else 1)


def test_what_is_kept_of_targets_without_a_spread(line):
    X, y = line
    many = np.repeat(X, 10, axis=0)
    model = BlockGMDRegressor(max_epochs=1, random_state=0).fit(many, np.zeros(2000))
    assert [len(part.y) for part in model._provisional.parts] == [1024]
    for _ in range(3):
        model.partial_fit(X, np.zeros(200))
    assert sum(len(part.y) for part in model._provisional.parts) <= 1024
    failing = copy.deepcopy(model)
    with pytest.raises(ValueError, match="y must have 1 columns"):
        failing.partial_fit(X, np.stack([y, y], axis=1))
    assert failing._provisional.seen == model._provisional.seen == 2600
    weight = np.arange(200) % 2
    mixed = BlockGMDRegressor(random_state=0).partial_fit(X, np.where(weight, 3.0, y), sample_weight=weight)
    assert mixed._provisional.seen == 100
    assert mixed.partial_fit(X[:9], y[:9], groups=np.arange(9) % 3)._provisional is None


def test_a_frozen_scale_of_one_chunk_stays_as_it_was(line):
    X, y = line
    model = BlockGMDRegressor(random_state=0).partial_fit(X[:32], y[:32])
    center, first = model._center, model.net_
    model.partial_fit(X, 5.0 * y)
    assert model._center is center
    assert len(model.history_) == 2
    assert len(first.history) == 1


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("settings", [{"group_size": None}, {"aggregator": "mean", "group_size": None}], ids=str)
def test_plain_training_that_diverges_says_so(line, settings):
    X, y = line
    diverging = {"max_epochs": 50, "optimizer": torch.optim.SGD, "criterion": torch.nn.MSELoss, "lr": 1e20}
    model = BlockGMDRegressor(random_state=0, **settings).fit(X, y)
    before = model.predict(X)
    with pytest.raises(NonFiniteRowsError, match=r"parameters must stay finite.* the parameters .0\.weight"):
        model.set_params(**diverging).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), before)


def test_a_large_second_chunk_drops_no_first_one(line):
    X, y = (np.repeat(part, 10, axis=0) for part in line)
    model = BlockGMDRegressor(random_state=0, hidden_layer_sizes=(5,)).partial_fit(X[:1], y[:1]).partial_fit(X, y)
    assert model.n_iter_ == 2
    assert model._provisional is None


@pytest.mark.parametrize("module", ["inside", "around", "perceptron"])
@pytest.mark.parametrize("columns", [1, 2])
def test_modules_that_give_bfloat16(line, module, columns):
    # In float64 autocast does nothing.
    X, y = line[0].astype(np.float32), line[1]
    targets = y if columns == 1 else np.column_stack([y, -y])
    settings = {} if module == "perceptron" else {"module": Narrow, "module__inside": module == "inside"}
    if settings:
        settings |= {"module__inputs": X.shape[1], "module__outputs": columns}
    model = BlockGMDRegressor(max_epochs=60, random_state=0, lr=0.02, **settings)
    with nullcontext() if module == "inside" else torch.autocast("cpu", dtype=torch.bfloat16):
        model.fit(X, targets)
        assert model.score(X, targets) > 0.9
    assert model.score(X, targets) > 0.9
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]
    assert model.predict(X).shape == targets.shape


@pytest.mark.parametrize("large", [1e307, 1.7e308])
@pytest.mark.parametrize("settings", [{}, {"group_size": 4}, {"max_epochs": 30}], ids=str)
def test_weights_whose_sum_overflows_are_those_times_a_constant(large, settings):
    X = np.random.default_rng(0).normal(size=(60, 3))
    y, weight = X[:, 0], np.linspace(0.5, 1.0, 60)
    models = [
        BlockGMDRegressor(random_state=0, **{"max_epochs": 3, **settings}).fit(X, y, sample_weight=given)
        for given in (large * weight, weight)
    ]
    found, expected = (model.predict(X) for model in models)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert models[0].score(X, y, large * weight) == pytest.approx(models[0].score(X, y, weight))


@pytest.mark.parametrize("kind", ["matrix", "array", "tensor"])
def test_sparse_targets_are_refused(kind):
    X, y = np.eye(6), np.arange(6.0)[:, None]
    makes = {"matrix": csr_matrix, "array": coo_array, "tensor": lambda y: torch.from_numpy(y).to_sparse()}
    with pytest.raises(TypeError, match="y must be dense for a regressor; found a sparse"):
        BlockGMDRegressor().fit(X, makes[kind](y))
    with pytest.raises(TypeError, match="y must be dense for a regressor; found a sparse"):
        BlockGMDRegressor(max_epochs=1).fit(X, y[:, 0]).score(X, makes[kind](y))


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(
            np.arange(6) * np.longdouble("1e400"),
            marks=pytest.mark.skipif(np.finfo(np.longdouble).maxexp <= 1024, reason="extended precision is float64"),
        ),
        np.array([10**400] * 6, dtype=object),
    ],
    ids=["longdouble", "integers"],
)
def test_targets_beyond_float64_are_refused(y):
    for targets in (y, np.column_stack([y, y])):
        with pytest.raises(ValueError, match="y must be finite in float64"):
            BlockGMDRegressor().fit(np.eye(6), targets)


@pytest.mark.parametrize("kind", [BlockGMDRegressor, BlockGMDClassifier])
@pytest.mark.parametrize("settings", [{}, {"max_epochs": 25}, {"group_size": 4}, {"leverage": None}], ids=str)
def test_inputs_near_the_end_of_float32_make_no_warnings(kind, settings):
    X = np.random.default_rng(0).normal(size=(80, 3))
    model = kind(random_state=0, **{"max_epochs": 5, **settings}).fit((1e38 * X).astype(np.float32), (X[:, 0] > 0) * 1)
    assert np.isfinite(model.predict((1e38 * X).astype(np.float32))).all()
