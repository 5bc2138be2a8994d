"""What a fitted estimator tells of its training samples, and what is refused as none."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import CorruptedLabels
from skbgmd.inspection import find_suspects
from skbgmd.inspection._training_samples import check_training_samples, known_of, robust_estimator_in, sample_trust


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


def test_pipelines_and_searches_are_looked_into() -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:120] / 16.0, y[:120]
    pipe = make_pipeline(StandardScaler(), BlockGMDClassifier(max_epochs=3, random_state=0)).fit(X, y)
    search = GridSearchCV(pipe, {"blockgmdclassifier__lr": [0.01]}, cv=2).fit(X, y)
    assert robust_estimator_in(pipe) is pipe[-1]
    assert robust_estimator_in(search) is search.best_estimator_[-1]
    np.testing.assert_array_equal(sample_trust(search), search.best_estimator_[-1].sample_trust_)
    np.testing.assert_array_equal(find_suspects(pipe, 5), find_suspects(pipe[-1], 5))
    np.testing.assert_array_equal(find_suspects(search, 5), find_suspects(search.best_estimator_[-1], 5))
    with pytest.raises(NotFittedError):
        sample_trust(make_pipeline(StandardScaler(), BlockGMDClassifier()))
    for unfitted in (GridSearchCV(pipe, {}), GridSearchCV(pipe, {}, cv=2, refit=False).fit(X, y)):
        with pytest.raises(NotFittedError, match=r"A search must be fitted, with refit=True, .* found GridSearchCV"):
            find_suspects(unfitted)


def test_data_must_be_of_as_many_samples_as_the_training() -> None:
    check_training_samples(3, X=[[1.0], [2.0], [3.0]])
    with pytest.raises(
        ValueError, match="corrupted must be of the 3 samples that the estimator was fitted on; found 2"
    ):
        check_training_samples(3, corrupted=[True, False])
    with pytest.raises(ValueError, match="y must be of the 3 samples that the estimator was fitted on; found None"):
        check_training_samples(3, y=None)


def test_samples_are_known_by_trust_and_likelihood_both() -> None:
    X, y = load_digits(return_X_y=True)
    model = BlockGMDClassifier(strength="mild", max_epochs=1, random_state=0).fit(X[:60] / 16.0, y[:60])
    model.sample_record_.trust[3] = np.nan
    model.sample_record_.likelihood[-1, 5] = np.nan
    known = known_of(model)
    assert known.indices.tolist() == [i for i in range(60) if i not in (3, 5)]
    np.testing.assert_array_equal(known.record.input_norm, model.sample_record_.input_norm[known.indices])
    assert known_of(BlockGMDClassifier()) is None
