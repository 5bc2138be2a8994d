"""Suspects: the samples that were trusted least, and their picture."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_digits, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier, BlockGMDRegressor
from skbgmd.corruption import CorruptedLabels, GaussianNoise, corrupt_labels
from skbgmd.inspection import SuspectGridDisplay
from skbgmd.inspection.suspects import SampleTrustDisplay, estimate_n_suspects, find_suspects, sample_losses


@pytest.fixture(scope="module")
def wrong_labels() -> Any:
    X, y = load_digits(return_X_y=True)
    X, y = X[:600] / 16.0, y[:600].copy()
    wrong = np.arange(600) % 10 == 3
    y[wrong] = (y[wrong] + 1) % 10
    model = BlockGMDClassifier(huber=1.0, max_epochs=40, random_state=0).fit(X, y)
    return model, X, y, wrong


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


def test_display(wrong_labels: Any) -> None:
    model, X, y, wrong = wrong_labels
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    display = SampleTrustDisplay.from_estimator(model, X, y, corrupted=wrong)
    left, right = display.axes_
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert set(labels) == {"clean (540)", "corrupted (60)", f"threshold {display.threshold:.2f}"}
    assert sum(patch.get_height() for patch in left.patches) == 600
    assert sum(len(line.get_xdata()) for line in right.lines) == 600
    assert left.get_yscale() == right.get_yscale() == "log"
    assert left.lines[0].get_xdata()[0] == display.threshold == estimate_n_suspects(model).threshold
    assert display.figure_ is left.figure
    suspects = SampleTrustDisplay.from_estimator(model, X, y)
    assert f"suspects ({len(find_suspects(model))})" in suspects.axes_[0].get_legend().get_texts()[1].get_text()
    without = SampleTrustDisplay(model.sample_trust_, display.loss).plot()
    assert without.axes_[0].get_xlabel() == "trust (mean weight)"
    with pytest.raises(ValueError, match="y must be of the 600 samples"):
        SampleTrustDisplay.from_estimator(model, X, y[:5])
    plt.close("all")


def test_suspects_are_of_an_estimator():
    with pytest.raises(TypeError, match="estimator must be a fitted BlockGMDClassifier"):
        find_suspects(np.zeros((3, 2)))
    X, y = load_digits(return_X_y=True)
    others = [
        LogisticRegression().fit(X[:60] / 16, y[:60]),
        CorruptedLabels(BlockGMDClassifier(max_epochs=1), fraction=0.1).fit(X[:60], y[:60]),
    ]
    for fitted in others:
        with pytest.raises(TypeError, match=r"estimator must be a BlockGMDClassifier or .* found [LC].*estimator_"):
            find_suspects(fitted)
    assert len(find_suspects(others[1].estimator_, 3)) == 3


def test_a_share_is_one_sample_at_least_and_no_weight_is_no_suspect(wrong_labels: Any) -> None:
    model, X, y, _ = wrong_labels
    assert len(find_suspects(model, fraction=1e-12)) == 1
    weight = np.ones(600)
    weight[:50] = 0.0
    weighted = BlockGMDClassifier(max_epochs=1, random_state=0).fit(X, y, sample_weight=weight)
    assert find_suspects(weighted, 600).min() == 50


def test_losses_are_of_targets_that_can_be(wrong_labels: Any) -> None:
    model, X, y, _ = wrong_labels
    with pytest.raises(ValueError, match=r"labels among the classes.*found \[-1\]"):
        sample_losses(model, X, np.where(np.arange(600) == 3, -1, y))
    X, y = make_regression(50, 3, random_state=0)
    regressor = BlockGMDRegressor(max_epochs=2, random_state=0).fit(X, y)
    assert sample_losses(regressor, X, y[:, None]).tolist() == sample_losses(regressor, X, y).tolist()
    with pytest.raises(ValueError, match=r"shape of the predictions, \(50,\); found \(50, 2\)"):
        sample_losses(regressor, X, np.stack([y, y], axis=1))
    both = BlockGMDRegressor(max_epochs=1).fit(X[:5], np.stack([y[:5]] * 2, axis=1))
    with pytest.raises(ValueError, match=r"found \(2, 5\)"):
        sample_losses(both, X[:5], np.stack([y[:5]] * 2))
    display = SampleTrustDisplay(regressor.sample_trust_, sample_losses(regressor, X, y))
    with pytest.raises(ValueError, match="ax must be one matplotlib Axes, 2 of them, or None"):
        display.plot(object())


def test_pipelines_and_searches_are_looked_into(wrong_labels: Any) -> None:
    _, X, y, _ = wrong_labels
    pipe = make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=3, random_state=0)).fit(X, y)
    search = GridSearchCV(pipe, {"blockgmdclassifier__lr": [0.01]}, cv=2).fit(X, y)
    np.testing.assert_array_equal(find_suspects(pipe, 5), find_suspects(pipe[-1], 5))
    np.testing.assert_array_equal(find_suspects(search, 5), find_suspects(search.best_estimator_[-1], 5))
    display = SampleTrustDisplay.from_estimator(pipe, X, y)
    np.testing.assert_allclose(display.loss, sample_losses(pipe[-1], pipe[:-1].transform(X), y))
    with pytest.raises(NotFittedError):
        find_suspects(make_pipeline(StandardScaler(), BlockGMDClassifier()), 1)


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


def test_displays_of_sparse_samples_and_of_several_labels() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 16)).astype(np.float32)
    y = (X[:, :3] > 0.0).astype(int)
    model = BlockGMDClassifier(max_epochs=5, strength="mild", random_state=0).fit(sparse.csr_array(X), y)
    assert SampleTrustDisplay.from_estimator(model, sparse.csr_array(X), y).figure_ is not None
    grid = SuspectGridDisplay.from_estimator(model, X, y, image_shape=(4, 4), n=4)
    assert len(grid.indices) == 4
