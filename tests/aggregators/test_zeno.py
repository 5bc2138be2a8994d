"""Zeno: descent on trusted samples decides, whatever the majority of rows is."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from aggregating import dense
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.aggregators import (
    BlockGeometricMedian,
    GeometricMedian,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    Zeno,
    ZenoState,
)
from skbgmd.aggregators.zeno import descent_scores, with_sample_loss
from skbgmd.corruption import get_gradient_corruption
from skbgmd.distributed import RobustHook
from skbgmd.rows import DenseRows


class Quadratic:
    """f(x) = 0.5 ||x||^2 about a point, counting its calls."""

    def __init__(self, x):
        self.x, self.n_calls = x, 0

    def __call__(self, displacement):
        self.n_calls += 1
        return 0.5 * (self.x + displacement).square().sum()


@pytest.mark.parametrize("rho", [None, 0.0, 0.3])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.99])
def test_zeno_by_its_definition(rho, fraction, rng):
    X, x, lr = rng.normal(size=(11, 6)), rng.normal(size=6), 0.2
    penalty = lr / 200 if rho is None else rho

    def f(at):
        return 0.5 * (at**2).sum()

    scores = [f(x) - f(x - lr * g) - penalty * (g**2).sum() for g in X]
    kept = np.argsort(scores)[::-1][: 11 - min(int(np.ceil(fraction * 11)), 10)]
    oracle = Quadratic(torch.from_numpy(x))
    aggregate, state = Zeno(oracle, lr=lr, rho=rho, fraction=fraction)(dense(X))
    np.testing.assert_allclose(aggregate.vector, X[kept].mean(axis=0))
    np.testing.assert_array_equal(np.flatnonzero(aggregate.weights), np.sort(kept))
    assert oracle.n_calls == 11
    assert state == ZenoState(1)


def test_descent_scores_rank_losses_that_are_not_finite_last():
    losses = np.array([1e300, np.nan, np.inf, -np.inf, 0.0])
    scores = descent_scores(losses, np.array([0.0, 0.0, 0.0, 0.0, 1e300]), 1.0)
    np.testing.assert_array_equal(scores, [-1e300, -np.inf, -np.inf, -np.inf, -np.inf])


@pytest.mark.filterwarnings("ignore:.*breakdown point")
@pytest.mark.parametrize(
    "attack", ["sign_flip", "bit_flip", "additive_noise", "constant_rows", "mimic", "inner_product"]
)
def test_twenty_of_thirty_rows_corrupt_and_still_it_descends(attack, rng):
    """The authors' claim; the geometric median, of which the corrupt rows are the majority, is the control."""
    corruption = get_gradient_corruption(attack).set_params(fraction=2 / 3)
    found = {}
    for name in ("zeno", "geometric median"):
        x, source = torch.full((40,), 3.0, dtype=torch.float64), np.random.RandomState(0)
        state, noise = None, np.random.default_rng(1)
        for _ in range(60):
            rows = x + 0.5 * torch.from_numpy(noise.normal(size=(30, 40)))
            rows = DenseRows(corruption(rows, source))
            rule = Zeno(Quadratic(x), lr=0.1, fraction=2 / 3) if name == "zeno" else GeometricMedian()
            aggregate, state = rule(rows, state)
            x = x - 0.1 * aggregate.vector
        found[name] = float(x.norm())
    assert found["zeno"] < 1.0
    if attack in ("sign_flip", "inner_product", "constant_rows"):
        assert not found["geometric median"] < 19.0


def test_one_honest_row_is_enough():
    x = torch.ones(5)
    rows = DenseRows(torch.cat([x[None], -x.repeat(9, 1) * torch.arange(1.0, 10.0)[:, None]]))
    aggregate, _ = Zeno(Quadratic(x), lr=0.1, fraction=0.9)(rows)
    assert torch.equal(aggregate.vector, x)


def test_rows_that_are_not_finite_may_be_the_majority():
    X = np.ones((9, 4))
    X[2:, 1] = [np.nan, np.inf, -np.inf, np.nan, np.nan, np.inf, np.nan]
    aggregate, _ = Zeno(Quadratic(torch.ones(4, dtype=torch.float64)), lr=0.1)(dense(X))
    np.testing.assert_array_equal(aggregate.vector, 1.0)
    assert aggregate.weights[2:].sum() == 0.0


def test_rows_none_of_which_is_finite_are_an_error():
    with pytest.raises(NonFiniteRowsError, match=r"A row must be finite .* found 3 of 3 rows that hold NaN or inf"):
        Zeno(float, lr=0.1)(dense(np.full((3, 2), np.nan)))


@pytest.mark.parametrize(
    ("loss", "error", "found"),
    [
        (None, TypeError, "NoneType"),
        ("low", TypeError, "str"),
        ((1.0, None), TypeError, "tuple"),
        (torch.ones(2), ValueError, r"shape \(2,\)"),
        (np.ones((0, 3)), ValueError, r"shape \(0, 3\)"),
    ],
)
def test_what_is_no_loss_is_refused(loss, error, found):
    with pytest.raises(error, match=f"oracle must return a number, or a tensor of one; found {found}"):
        Zeno(lambda displacement: loss, lr=0.1)(dense(np.eye(3)))


@pytest.mark.parametrize("loss", [1, 0.5, np.float32(2.0), np.ones((1, 1)), torch.ones(1, requires_grad=True)])
def test_losses_are_numbers_of_any_kind(loss):
    aggregate, _ = Zeno(lambda displacement: loss, lr=0.1)(dense(np.eye(3)))
    assert aggregate.weights.sum() == pytest.approx(1.0)


def test_a_loss_on_trusted_samples_is_not_blamed_on_gradients(data):
    model = BlockGMDClassifier(aggregator=Zeno(lambda displacement: np.nan, lr=0.1), max_epochs=1)
    with pytest.raises(NonFiniteRowsError, match=r"The loss on trusted samples must be finite .* for all \d+\.$"):
        model.fit(*data)


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_nowhere_finite_is_an_error(loss):
    with pytest.raises(NonFiniteRowsError, match=r"The loss on trusted samples must be finite .* NaN or inf for all 3"):
        Zeno(lambda displacement: loss, lr=0.1)(DenseRows(torch.ones(3, 2)))


def test_oracles_may_give_numbers_and_tensors(rng):
    X = rng.normal(size=(7, 5))
    ways = [
        lambda d: float(d.sum()),
        lambda d: d.sum(),
        lambda d: d.sum().reshape(1),
        lambda d: d.sum().float().numpy(),
        lambda d: d.clone().requires_grad_().sum(),
    ]
    found = [Zeno(way, lr=0.1)(dense(X))[0].vector for way in ways]
    assert all(torch.equal(each, found[0]) for each in found)


def test_copies_share_the_oracle(rng):
    """What looks at a network must look at the one that is trained."""
    x = torch.ones(4, dtype=torch.float64)
    oracle = Quadratic(x)
    for make in (clone, copy.deepcopy):
        for rule in (Zeno(oracle, lr=0.1), NearestNeighborMixing(Zeno(oracle, lr=0.1))):
            twin = make(rule)
            inner = getattr(twin, "aggregator", twin)
            assert inner.oracle is oracle
            assert inner is not getattr(rule, "aggregator", rule)
    trusted = (np.ones((3, 2)), np.ones(3))
    assert clone(Zeno(trusted=trusted)).trusted[0] is not trusted[0]


def test_half_precision_is_widened():
    seen = []
    Zeno(lambda d: seen.append(d.dtype) or float(d.sum()), lr=0.1)(DenseRows(torch.ones(3, 2, dtype=torch.bfloat16)))
    assert seen == [torch.float32] * 3


def test_mixed_rows_are_what_is_tried(rng):
    X, x = rng.normal(size=(8, 5)) + 1.0, torch.ones(5, dtype=torch.float64)
    aggregate, _ = NearestNeighborMixing(Zeno(Quadratic(x), lr=0.1, fraction=0.5))(dense(X))
    mixed = torch.from_numpy(NearestNeighborMixing(Mean())._average(dense(X), 0)[0] @ X)
    expected, _ = Zeno(Quadratic(x), lr=0.1, fraction=0.5)(DenseRows(mixed))
    np.testing.assert_allclose(aggregate.vector, expected.vector)


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({}, ValueError, "One of oracle and trusted must be given; found neither"),
        ({"oracle": float, "trusted": ([[1.0]], [1])}, ValueError, "found both"),
        ({"oracle": 3.0, "lr": 1.0}, TypeError, "oracle must be callable or None; found 3.0"),
        ({"oracle": float}, ValueError, "lr must be given with an oracle"),
        ({"oracle": float, "lr": 0.0}, ValueError, "lr must be greater than 0"),
        ({"oracle": float, "lr": 0.1, "fraction": 1.0}, ValueError, "fraction must be less than 1"),
        ({"oracle": float, "lr": 0.1, "fraction": -0.1}, ValueError, "fraction must be at least 0"),
        ({"oracle": float, "lr": 0.1, "rho": -1.0}, ValueError, "rho must be at least 0"),
        ({"oracle": float, "lr": 0.1, "n_trusted": 0}, ValueError, "n_trusted must be at least 1"),
        ({"trusted": ([[1.0]], [1])}, ValueError, "found it in a call outside of a training step"),
        ({"trusted": [[1.0]]}, TypeError, r"trusted must be a pair \(X, y\) .* found list"),
        ({"trusted": 3}, TypeError, "trusted must be a pair .* found int"),
        ({"trusted": (np.ones((2, 1)), [1, 1, 0])}, ValueError, "as many samples as targets, .* found 2 and 3"),
        ({"trusted": (np.ones((0, 1)), [])}, ValueError, "as many samples as targets, one at least; found 0 and 0"),
    ],
)
def test_zeno_parameters(params, kind, message):
    with pytest.raises(kind, match=message):
        Zeno(**params)(DenseRows(torch.eye(3)))
    with pytest.raises(kind, match=message):
        Zeno(**params).check_parameters()


def test_trusted_samples_are_drawn_afresh_by_the_seed():
    seen = []

    class Loss:
        lr = 0.3

        def on(self, samples, index):
            return lambda displacement: seen.append((index.tolist(), displacement.tolist())) or 0.0

    rows, zeno = DenseRows(torch.ones(2, 1)), Zeno(trusted=(np.ones((50, 1)), np.ones(50)), n_trusted=4, random_state=3)
    with with_sample_loss(Loss()):
        _, state = zeno(rows)
        zeno(rows, state)
        clone(zeno)(rows)
        Zeno(trusted=zeno.trusted, lr=2.0)(rows)
    first, second, again, other = (seen[k] for k in (0, 2, 4, 6))
    assert seen[0] == seen[1]
    assert first == again
    assert first[1] == [pytest.approx(-0.3)]
    assert set(first[0]) != set(second[0])
    assert len(set(first[0])) == 4
    assert len(other[0]) == 32
    assert other[1] == [-2.0]


def digits():
    X, y = load_digits(return_X_y=True)
    names = np.array([f"digit {k}" for k in y])
    return train_test_split((X / 16.0).astype(np.float32), names, test_size=0.25, random_state=0, stratify=names)


@pytest.mark.filterwarnings("ignore:.*breakdown point")
@pytest.mark.parametrize("attack", ["sign_flip", "inner_product"])
def test_digits_with_sixty_percent_corrupt_rows(attack):
    X, X_test, y, y_test = digits()
    settings = {
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "lr": 0.1,
        "batch_size": 256,
        "group_size": 8,
        "max_epochs": 6,
        "gradient_corruption": get_gradient_corruption(attack).set_params(fraction=0.6),
        "random_state": 0,
    }
    zeno = Zeno(trusted=(X[:100], y[:100]), fraction=0.65)
    model = BlockGMDClassifier(aggregator=zeno, **settings).fit(X, y)
    assert model.score(X_test, y_test) > 0.85
    assert zeno.trusted[1][0].startswith("digit")


def test_trainings_with_trusted_samples_repeat(data):
    X, y = data
    found = [
        BlockGMDClassifier(aggregator=Zeno(trusted=(X[:40], y[:40]), n_trusted=5), max_epochs=2, random_state=seed)
        .fit(X, y)
        .predict_proba(X)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.coo_matrix])
def test_sparse_samples_are_trusted(data, kind):
    X, y = data
    found = [
        BlockGMDClassifier(aggregator=Zeno(trusted=(samples, y[:40])), group_size=8, max_epochs=2, random_state=0)
        .fit(sparse.csr_array(X), y)
        .predict_proba(X)
        for samples in (X[:40], kind(X[:40]))
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("shape", ["perceptron", "column", "flat"])
def test_trusted_samples_of_regressors_are_scaled_as_targets_are(shape, forked, rng):
    X = rng.normal(size=(200, 3))
    y = 1000.0 * X[:, 0] + 5000.0
    linear = torch.nn.Linear(3, 1)
    more = {
        "perceptron": {},
        "column": {"module": linear, "lr": 0.05},
        "flat": {"module": torch.nn.Sequential(linear, torch.nn.Flatten(0)), "lr": 0.05},
    }
    zeno = Zeno(trusted=(X[:50].tolist(), y[:50].tolist()), fraction=0.5)
    model = BlockGMDRegressor(aggregator=zeno, group_size=8, max_epochs=30, random_state=0, **more[shape]).fit(X, y)
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("kind", ["list", "frame", "tensor", "float64"])
def test_trusted_samples_of_any_kind(kind, data, forked):
    X, y = data
    ways = {
        "list": (X[:30].tolist(), y[:30].tolist()),
        "frame": (pd.DataFrame(X[:30]), pd.Series(y[:30])),
        "tensor": (torch.from_numpy(X[:30]), y[:30]),
        "float64": (X[:30], y[:30]),
    }
    settings = {"max_epochs": 1, "random_state": 0, "hidden_layer_sizes": (8,)}
    found = BlockGMDClassifier(aggregator=Zeno(trusted=ways[kind]), **settings).fit(X.astype(np.float32), y)
    mixed = BlockGMDClassifier(aggregator=Zeno(trusted=ways[kind]), pre_aggregation="nearest", **settings).fit(X, y)
    expected = BlockGMDClassifier(aggregator=Zeno(trusted=ways["list"]), **settings).fit(X.astype(np.float32), y)
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    assert np.isfinite(mixed.predict_proba(X)).all()
    net = RobustNeuralNetClassifier(found.module_, criterion=torch.nn.CrossEntropyLoss, verbose=0, max_epochs=1)
    codes = (y == "yes").astype(np.int64)
    # To skorch a list of lists is a list of inputs.
    trusted = (X[:30] if kind == "list" else ways[kind][0], codes[:30].tolist())
    net.set_params(aggregator=Zeno(trusted=trusted), train_split=None).fit(X.astype(np.float32), codes)
    assert np.isfinite(net.history[-1]["train_loss"])


@pytest.mark.parametrize(
    ("trusted", "message"),
    [
        ((np.ones((5, 3)), ["no"] * 5), r"trusted must have samples of the shape .* \(4,\); found \(3,\)"),
        ((np.ones((5, 4)), ["maybe"] * 5), "trusted must have targets as those to train on. y must have labels among"),
        ((np.full((5, 4), np.nan), ["no"] * 5), "trusted must be finite"),
        ((np.ones((5, 4)), ["no"] * 4), "trusted must have as many samples as targets"),
        ((np.ma.masked_array(np.ones((5, 4)), np.eye(5, 4)), ["no"] * 5), "trusted must have no masked entries"),
    ],
)
def test_trusted_samples_that_do_not_fit(trusted, message, data):
    with pytest.raises(ValueError, match=message):
        BlockGMDClassifier(aggregator=Zeno(trusted=trusted), max_epochs=1).fit(*data)


def test_zeno_judges_whole_rows_only():
    with pytest.raises(TypeError, match="location must be"):
        BlockGeometricMedian(0.1, Zeno(float, lr=1.0))(DenseRows(torch.eye(3)))
    with pytest.raises(ValueError, match="must not need whole rows where beta is less than 1"):
        RobustHook(Zeno(float, lr=1.0), beta=0.1)


@pytest.mark.parametrize("kind", [BlockGMDClassifier, BlockGMDRegressor])
def test_trusted_frames_have_the_columns_of_the_training(kind, forked, rng):
    frame = pd.DataFrame(rng.normal(size=(40, 3)).astype(np.float32), columns=["a", "b", "c"])
    y = (frame["a"] > 0.0).to_numpy().astype(int)

    def fit(X, trusted):
        zeno = Zeno(trusted=(trusted, y[::4]))
        settings = {"aggregator": zeno, "group_size": 8, "max_epochs": 2, "random_state": 0}
        return kind(**settings).fit(X, y).predict(X)

    expected = fit(frame.to_numpy(), frame[::4].to_numpy())
    for X, trusted in ((frame, frame[::4]), (frame, frame[::4].to_numpy()), (frame.to_numpy(), frame[::4])):
        np.testing.assert_array_equal(fit(X, trusted), expected)
    for other in (frame[["c", "a", "b"]], frame.rename(columns={"a": "d"}), frame[["a", "b"]]):
        with pytest.raises(
            ValueError, match=r"trusted must have the columns of the samples to train on\. The feature nam"
        ):
            fit(frame, other[::4])
