"""Clients: ids of whom samples are of, which are other than the groups of a cross-validation."""

from __future__ import annotations

import inspect
from typing import ClassVar

import numpy as np
import pytest
import sklearn
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skbgmd import BlockGMDClassifier, BlockGMDRegressor

N = 60
CLIENTS, GROUPS = np.arange(N) % 6, np.arange(N) // 10
MAKERS = {
    BlockGMDClassifier: lambda: make_classification(N, 5, random_state=0),
    BlockGMDRegressor: lambda: make_regression(N, 5, random_state=0),
}
pytestmark = pytest.mark.parametrize("kind", MAKERS)


@pytest.fixture
def data(kind):
    return MAKERS[kind]()


def quick(kind, **settings):
    return kind(**{"max_epochs": 2, "batch_size": 5, "random_state": 0, **settings})


def watched(kind):
    """A subclass whose fits say which clients and weights they were given."""

    class Watched(kind):
        calls: ClassVar = []

        def fit(self, X, y, sample_weight=None, groups=None, sample_id=None, clients=None):
            Watched.calls.append({"groups": groups, "clients": clients, "sample_weight": sample_weight})
            return super().fit(X, y, sample_weight, groups, sample_id, clients)

    return Watched


def test_groups_is_another_name_where_it_is_given_to_fit(kind, data):
    X, y = data
    expected = quick(kind).fit(X, y, clients=CLIENTS).predict(X)
    np.testing.assert_array_equal(quick(kind).fit(X, y, groups=CLIENTS).predict(X), expected)
    # In its old place, too.
    np.testing.assert_array_equal(quick(kind).fit(X, y, None, CLIENTS).predict(X), expected)
    assert (quick(kind).fit(X, y).predict(X) != expected).any()
    classes = {"classes": [0, 1]} if kind is BlockGMDClassifier else {}
    by_parts = [quick(kind).partial_fit(X, y, **classes, **{name: CLIENTS}) for name in ("clients", "groups")]
    np.testing.assert_array_equal(by_parts[0].predict(X), by_parts[1].predict(X))
    assert by_parts[0].net_.history[-1]["batches"]


def test_arguments_keep_their_places(kind, data):
    order = ["self", "X", "y", "sample_weight", "groups", "sample_id", "clients"]
    assert list(inspect.signature(kind.fit).parameters) == order
    part = [name for name in inspect.signature(kind.partial_fit).parameters if name != "classes"]
    assert part == order


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_both_names_are_refused(kind, data, method):
    X, y = data
    model = quick(kind).fit(X, y)
    before = model.net_
    with pytest.raises(ValueError, match=r"^One of clients and groups.*found both"):
        getattr(model, method)(X, y, groups=GROUPS, clients=CLIENTS)
    assert model.net_ is before
    with pytest.raises(ValueError, match=r"^clients must have shape"):
        getattr(model, method)(X, y, clients=np.stack([CLIENTS, CLIENTS], axis=1))


def check_calls(calls, n_fits):
    assert len(calls) == n_fits
    for call in calls:
        assert call["groups"] is None
        # Those of the samples of the fold.
        assert len(set(call["clients"])) == 6
    assert sorted(len(call["clients"]) for call in calls) == [40, 40, 40, 60]


def test_searches_without_routing(kind, data):
    X, y = data
    Watched = watched(kind)
    search = GridSearchCV(quick(Watched), {"lr": [0.01]}, cv=GroupKFold(3), error_score="raise")
    search.fit(X, y, groups=GROUPS, clients=CLIENTS)
    check_calls(Watched.calls, 4)
    Watched.calls.clear()
    # Groups alone are the splitter's, and no clients.
    search.fit(X, y, groups=GROUPS)
    assert [call["clients"] for call in Watched.calls] == [None] * 4 == [call["groups"] for call in Watched.calls]
    Watched.calls.clear()
    model = make_pipeline(StandardScaler(), quick(Watched))
    search = GridSearchCV(model, {"watched__lr": [0.01]}, cv=GroupKFold(3), error_score="raise")
    search.fit(X, y, groups=GROUPS, watched__clients=CLIENTS)
    check_calls(Watched.calls, 4)


def test_searches_with_routing(kind, data):
    X, y = data
    Watched = watched(kind)
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(Watched).set_fit_request(clients=True)
        search = GridSearchCV(model, {"lr": [0.01]}, cv=GroupKFold(3), error_score="raise")
        search.fit(X, y, groups=GROUPS, clients=CLIENTS)
        check_calls(Watched.calls, 4)
        Watched.calls.clear()
        GridSearchCV(make_pipeline(StandardScaler(), model), {}, cv=GroupKFold(3), error_score="raise").fit(
            X, y, groups=GROUPS, clients=CLIENTS
        )
        check_calls(Watched.calls, 4)
        Watched.calls.clear()
        # Nothing is to be said of groups, which the splitter has asked for.
        cross_validate(quick(Watched), X, y, cv=GroupKFold(3), params={"groups": GROUPS}, error_score="raise")
        assert [call["clients"] for call in Watched.calls] == [None] * 3
        with pytest.raises(UnsetMetadataPassedError, match=r"\[clients\] are passed but"):
            GridSearchCV(quick(kind), {}, cv=GroupKFold(3)).fit(X, y, groups=GROUPS, clients=CLIENTS)
        with pytest.raises(TypeError, match="groups"):
            quick(kind).set_fit_request(groups=True)
        # Called by itself a fit takes what it is given.
        quick(kind).fit(X, y, groups=CLIENTS)


def test_weights_ids_and_clients_together(kind, data):
    X, y = data
    Watched = watched(kind)
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(Watched).set_fit_request(clients=True, sample_weight=True, sample_id=True)
        model.set_partial_fit_request(clients=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, {}, cv=GroupKFold(3), error_score="raise")
        weight = np.where(np.arange(N) % 4 == 0, 0.0, 1.0)
        search.fit(X, y, groups=GROUPS, clients=CLIENTS, sample_weight=weight, sample_id=np.arange(N))
    check_calls(Watched.calls, 4)
    assert np.isnan(search.best_estimator_.sample_trust_[::4]).all()
    assert np.isfinite(search.best_estimator_.sample_trust_[1::4]).all()
