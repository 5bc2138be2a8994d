"""Suspects: the samples that were trusted least, and how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from suspecting import fitted_to_wrong_labels

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.corruption import GaussianNoise, corrupt_labels
from skbgmd.inspection import SampleTrustDisplay, estimate_n_suspects, find_suspects, sample_losses


@pytest.fixture(scope="module")
def wrong_labels() -> Any:
    return fitted_to_wrong_labels()


def test_wrong_labels_are_found(wrong_labels: Any) -> None:
    model, _, _, wrong = wrong_labels
    assert roc_auc_score(wrong, -model.sample_trust_) > 0.95
    suspects = find_suspects(model, 60)
    assert suspects.dtype == np.int64
    assert wrong[suspects].mean() > 0.8
    np.testing.assert_array_equal(find_suspects(model, fraction=0.1), suspects)
    ranks = np.empty(600)
    ranks[find_suspects(model, 600)] = np.arange(600)
    assert roc_auc_score(wrong, -ranks) > roc_auc_score(wrong, -model.sample_trust_)


def test_the_number_of_suspects_is_estimated(wrong_labels: Any) -> None:
    model, _, _, wrong = wrong_labels
    estimate = estimate_n_suspects(model)
    assert abs(estimate.n - 60) < 20
    assert estimate.low <= 60 <= estimate.high
    assert estimate.n == estimate.n_badly_fitted + estimate.n_unusual_inputs
    assert 0.0 < estimate.threshold < 1.0
    found = find_suspects(model)
    assert len(found) == estimate.n
    assert wrong[found].mean() > 0.8
    np.testing.assert_array_equal(find_suspects(model, len(found)), found)
    assert estimate_n_suspects(make_pipeline(StandardScaler(), model)) == estimate


def test_clean_data_have_no_suspects() -> None:
    X, y = load_digits(return_X_y=True)
    model = BlockGMDClassifier(strength="mild", max_epochs=40, random_state=0).fit(X[:600] / 16.0, y[:600])
    assert estimate_n_suspects(model)[:3] == (0, 0, 0)
    assert find_suspects(model).tolist() == []


def test_what_is_learnt_late_is_no_suspect() -> None:
    """Two spirals: half of the samples are misfitted in the first epochs, and a third predicts most labels."""
    rng = np.random.default_rng(0)
    radius, y = np.sqrt(rng.random(3000)) * 3.0 * np.pi, rng.integers(2, size=3000)
    angle = radius + np.pi * y
    X = np.c_[radius * np.cos(angle), radius * np.sin(angle)] + 0.3 * rng.normal(size=(3000, 2))
    X = StandardScaler().fit(X[:1000]).transform(X).astype(np.float32)
    model = BlockGMDClassifier(random_state=0).fit(X[:1000], y[:1000])
    assert model.score(X[1000:], y[1000:]) > 0.9
    assert estimate_n_suspects(model).n == 0


def test_wrong_features_are_found() -> None:
    X, y = load_digits(return_X_y=True)
    noise = GaussianNoise(0.2, std=10.0, random_state=0)
    X = noise.fit_transform(StandardScaler().fit_transform(X[:600]))
    model = BlockGMDClassifier(strength="mild", max_epochs=40, random_state=0).fit(X, y[:600])
    found = find_suspects(model)
    assert len(found) == pytest.approx(120, abs=12)
    assert noise.corrupted_[found].mean() > 0.9


def test_of_groups_there_is_no_estimate_but_a_ranking() -> None:
    X, y = load_digits(return_X_y=True)
    model = BlockGMDClassifier(group_size=4, max_epochs=2, random_state=0).fit(X[:300] / 16.0, y[:300])
    with pytest.raises(ValueError, match="nothing is known of them where rows are groups"):
        estimate_n_suspects(model)
    with pytest.raises(ValueError, match="Give n_suspects or fraction"):
        find_suspects(model)
    assert np.all(np.diff(model.sample_trust_[find_suspects(model, 30)]) >= 0.0)


def test_wrong_targets_are_found() -> None:
    X, y = make_regression(300, 5, noise=1.0, random_state=0)
    y[::10] += 30.0 * y.std()
    model = BlockGMDRegressor(max_epochs=40, random_state=0).fit(X, y)
    assert len(set(find_suspects(model, 30)) & set(range(0, 300, 10))) > 24
    assert sample_losses(model, X, y)[::10].min() > np.median(sample_losses(model, X, y))


def test_what_is_not_known_is_no_suspect() -> None:
    fitted = BlockGMDClassifier()
    fitted.sample_trust_ = np.array([np.nan, 0.3, 0.1, np.nan])
    assert find_suspects(fitted, 3).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_suspects": 2, "fraction": 0.1}, "One of n_suspects and fraction may be given"),
        ({"n_suspects": 601}, "at most the number of samples, 600; found 601"),
        ({"n_suspects": 0}, "n_suspects must be"),
        ({"fraction": 1.5}, "fraction must be"),
    ],
)
def test_arguments_are_checked(wrong_labels: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_suspects(wrong_labels[0], **arguments)


def test_unknown_trust_and_unfitted_estimators() -> None:
    fitted = BlockGMDClassifier()
    fitted.sample_trust_ = np.full(3, np.nan)
    with pytest.raises(ValueError, match="found only NaN"):
        find_suspects(fitted, 1)
    with pytest.raises(NotFittedError):
        find_suspects(BlockGMDClassifier(), 1)


def test_a_share_is_one_sample_at_least_and_no_weight_is_no_suspect(wrong_labels: Any) -> None:
    model, X, y, _ = wrong_labels
    assert len(find_suspects(model, fraction=1e-12)) == 1
    weight = np.ones(600)
    weight[:50] = 0.0
    weighted = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, y, sample_weight=weight)
    assert find_suspects(weighted, 600).min() == 50


@pytest.mark.parametrize(
    "settings",
    [
        {"group_size": None},
        {"group_size": 9, "weighted": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:group_size must be smaller")
def test_where_all_are_trusted_alike_there_are_no_suspects(settings: dict[str, Any]) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:60] / 16.0, y[:60].copy()
    settings = dict(settings)
    weight = np.linspace(1.0, 3.0, 60) if settings.pop("weighted", False) else None
    n = 9 if weight is not None else 60
    model = BlockGMDClassifier(max_epochs=2, random_state=0, **settings)
    model.fit(X[:n], y[:n], sample_weight=None if weight is None else weight[:n])
    for arguments in ({"n_suspects": 5}, {"fraction": 0.1}):
        with pytest.raises(ValueError, match=rf"must differ for samples to be suspects; found 1 for all {n} "):
            find_suspects(model, **arguments)
    assert len(find_suspects(model, n)) == n  # all of them is no choice


@pytest.mark.parametrize("settings", [{"aggregator": "mean"}, {"huber": 1e9, "rejection": None}], ids=str)
def test_single_samples_that_are_trusted_alike_are_told_apart_by_their_likelihood(settings: dict[str, Any]) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16.0, y[:300].copy()
    y[::10] = (y[::10] + 1) % 10
    model = BlockGMDClassifier(max_epochs=10, random_state=0, **settings).fit(X, y)
    assert np.ptp(model.sample_trust_) < 1e-6
    assert (find_suspects(model, 30) % 10 == 0).mean() > 0.5


def test_a_sample_that_nothing_is_known_of_moves_no_other() -> None:
    X, y = load_digits(return_X_y=True)
    X, (y, wrong) = X[:600] / 16.0, corrupt_labels(y[:600], fraction=0.2, random_state=0)
    model = BlockGMDClassifier(strength="firm", max_epochs=50, random_state=0).fit(X, y)
    whole = find_suspects(model, 100)
    record = model.sample_record_
    record.likelihood[:, 7] = np.nan
    record.input_norm[11] = np.inf
    found = find_suspects(model, 100)
    assert 7 not in found
    assert len(set(found) & set(whole)) > 90
    assert wrong[found].mean() > 0.8
    assert np.isnan(SampleTrustDisplay.from_estimator(model, X, y).likelihood[7])
