"""Searches whose fits run in other processes: joblib's loky, a cluster of dask, and ray."""

from __future__ import annotations

import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback

import skbgmd
from conftest import end_workers
from fits import quick
from skbgmd import BlockGMDRegressor
from skbgmd.aggregators import HuberMean, Krum, NearestNeighborMixing, RowWeighting
from skbgmd.corruption import BitFlip
from skbgmd.ghost import DenseFactor, register_rule
from skbgmd.training import register_loss


class Net(torch.nn.Sequential):
    """What workers import from here, with something drawn at random in each step."""

    def __init__(self, width=8):
        super().__init__(torch.nn.Linear(4, width), torch.nn.Dropout(0.2), torch.nn.Linear(width, 2))


class OwnNet(NeuralNetClassifier):
    """A net of a user's own, of which a robust one is made in each process."""


class Records(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.history.record("seen", True)


class FirstRow(RowWeighting):
    def __init__(self, first=0):
        self.first = first

    def _weigh(self, rows):
        return np.eye(rows.n_rows)[self.first]


@pytest.fixture(autouse=True, scope="module")
def _no_idle_workers():
    """Joblib's workers serve all tests here, which follow one another: they take seconds to start."""
    yield
    end_workers()


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("dask.distributed")
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture(params=["loky", pytest.param("dask", marks=pytest.mark.slow)])
def elsewhere(request):
    """Makes contexts in which fits run in other processes."""
    if request.param == "dask":
        request.getfixturevalue("client")
    return lambda: joblib.parallel_config(request.param, n_jobs=2)


@pytest.fixture(autouse=True)
def _one_thread():
    """As many as workers have: sums of another number of threads have other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def own_parts():
    """A loss and a layer of a user's own that are sent by value, and that workers never register."""

    class LogCosh(torch.nn.Module):
        reduction = "mean"

        def forward(self, predicted, y):
            distance = (predicted - y).abs()
            losses = distance + torch.nn.functional.softplus(-2.0 * distance) - math.log(2.0)
            return {"none": losses, "mean": losses.mean(), "sum": losses.sum()}[self.reduction]

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.ones(4))
            self.last = torch.nn.Linear(4, 1)

        def forward(self, X):
            return self.last(self.factor * X)

    register_loss(LogCosh)

    @register_rule(Scaled)
    def rule(layer, inputs, gradient):
        weight = (gradient * layer.factor * inputs[0])[:, None]
        factors = {"last.bias": gradient, "last.weight": weight, "factor": gradient * layer.last.weight * inputs[0]}
        return {name: DenseFactor(factor) for name, factor in factors.items()}

    return {"criterion": LogCosh, "module": Scaled}


def searches(data, line):
    """Searches by name: an estimator, a grid, data, and what else fit is given."""
    X, y = data
    weight = np.linspace(0.1, 1.0, len(X))
    wide = np.random.default_rng(0).normal(size=(2000, 80))
    plain = quick(max_epochs=3, strength=None, group_size=1)
    settings = {"max_epochs": 3, "random_state": 0, "hidden_layer_sizes": (8,), "strength": None}
    net = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    rules = [Krum(), HuberMean(c=1.0), FirstRow(2), NearestNeighborMixing(Krum())]
    several = [{"lr": [1e-6, 0.02]}, {"huber": [1.0, None], "beta": [0.1, 1.0]}, {"aggregator": rules}]
    corrupted = quick(max_epochs=3, gradient_corruption=BitFlip(0.2, random_state=1))
    drawing = quick(max_epochs=3, module=Net, callbacks=[Records()], random_state=np.random.RandomState(3))
    weighted = {"blockgmdclassifier__sample_weight": weight}
    return {
        "rules": (plain, several, (X, y), {}),
        "strength": (quick(max_epochs=3, group_size=1), {"lr": [1e-6, 0.02]}, (X, y), {}),
        "corruption": (corrupted, {"group_size": [8, 16]}, (X, y), {}),
        "pipeline": (
            make_pipeline(StandardScaler(), plain),
            {"blockgmdclassifier__beta": [0.1, 1.0]},
            (X, y),
            weighted,
        ),
        "module": (drawing, {"module__width": [2, 8]}, (X, y), {}),
        "net": (
            quick(module=OwnNet(Net, **net), strength=None, group_size=1),
            {"module": [OwnNet(Net, max_epochs=n, **net) for n in (1, 3)]},
            (X, y),
            {},
        ),
        "regressor": (BlockGMDRegressor(**settings), {"huber": [1.0, None], "lr": [1e-6, 0.02]}, line, {}),
        # What is large is shared by joblib and dask, and can't be written to.
        "large": (plain, {"lr": [1e-6, 0.02]}, (wide, wide[:, 0] > 0.0), {}),
        "own parts": (
            BlockGMDRegressor(gradients="one_pass", **settings, **own_parts()),
            {"lr": [1e-6, 0.02]},
            (X, X @ [1.0, -2.0, 0.5, 1.0]),
            {},
        ),
    }


def scores(search):
    """All that was scored, by the names of columns."""
    return {name: column for name, column in search.cv_results_.items() if "score" in name and "time" not in name}


def assert_same(one, other):
    """Searches with the same results, to the last digit."""
    assert repr(other.best_params_) == repr(one.best_params_)
    for name, column in scores(one).items():
        np.testing.assert_array_equal(scores(other)[name], column, err_msg=name)


def test_scores_on_a_cluster_are_those_of_one_process(data, client):
    estimator, grid, (X, y), params = searches(data, None)["pipeline"]
    search = GridSearchCV(estimator, grid, cv=2, error_score="raise")
    alone = sklearn.clone(search).fit(X, y, **params)
    with joblib.parallel_config("dask"):
        assert_same(alone, search.fit(X, y, **params))


@pytest.mark.usefixtures("forked")
# What needs new workers comes first: the first ones are new anyway.
@pytest.mark.parametrize(
    "name", ["net", "module", "own parts", "rules", "strength", "corruption", "pipeline", "regressor", "large"]
)
def test_scores_are_those_of_one_process(data, line, elsewhere, name):
    estimator, grid, (X, y), params = searches(data, line)[name]
    search = GridSearchCV(estimator, grid, cv=2, error_score="raise")
    alone = sklearn.clone(search).fit(X, y, **params)
    if name in ("net", "module", "own parts"):
        end_workers()  # new ones have imported nothing that a user's own classes might need
    with elsewhere():
        search.fit(X, y, **params)
    assert_same(alone, search)
    # What was drawn or shared in the searches doesn't show in what they are refitted to.
    predict = "predict_proba" if hasattr(alone, "predict_proba") else "predict"
    expected = getattr(alone, predict)(X)
    np.testing.assert_array_equal(getattr(search, predict)(X), expected)
    if name != "own parts":  # whose classes are found by nobody's name
        np.testing.assert_array_equal(getattr(pickle.loads(pickle.dumps(search)), predict)(X), expected)


def test_weights_ids_and_clients_are_routed(data, elsewhere):
    X, y = data
    given = {"sample_weight": np.linspace(0.1, 1.0, len(X)), "sample_id": np.array([f"s{i}" for i in range(len(X))])}
    clients = np.arange(len(X)) % 8
    with sklearn.config_context(enable_metadata_routing=True):
        single = quick(max_epochs=3, group_size=1, strength=None)
        single.set_fit_request(**dict.fromkeys(given, True)).set_score_request(sample_weight=True)
        of_samples = GridSearchCV(single, {"trust_power": [None, 3.0]}, cv=2, error_score="raise")
        of_clients = GridSearchCV(
            quick(max_epochs=3, batch_size=16, group_size=1).set_fit_request(clients=True),
            {"aggregator": ["mean", "geometric_median"]},
            cv=GroupKFold(2),
            error_score="raise",
        )
        for search, params in ((of_samples, given), (of_clients, {"groups": clients // 2, "clients": clients})):
            alone = sklearn.clone(search).fit(X, y, **params)
            with elsewhere():
                assert_same(alone, search.fit(X, y, **params))
        # They get there: each is refused where it can't be. Workers that return an error live on, others would end.
        of_samples.set_params(error_score=np.nan)
        for wrong in ({"sample_weight": -given["sample_weight"]}, {"sample_id": np.full(len(X), np.nan)}):
            with (
                elsewhere(),
                pytest.raises(ValueError, match=f"(?s)All the 4 fits failed.*\nValueError: {next(iter(wrong))} must"),
            ):
                of_samples.fit(X, y, **{**given, **wrong})


def test_a_candidate_that_fails(data, elsewhere):
    grid = {"lr": [0.02, -1.0]}
    search = GridSearchCV(quick(max_epochs=2), grid, cv=2)
    with elsewhere(), pytest.warns(FitFailedWarning, match="lr must be"), pytest.warns(UserWarning, match="non-finite"):
        search.fit(*data)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert search.best_params_ == {"lr": 0.02}
    # An error that is raised ends the workers, and so comes last.
    with elsewhere(), pytest.raises(ValueError, match=r"^lr must be .*found -1\.0"):
        GridSearchCV(quick(max_epochs=2), grid, cv=2, error_score="raise").fit(*data)


SCRIPT = """
    import sys
    from contextlib import contextmanager

    import joblib, numpy as np, torch
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV
    from skbgmd import BlockGMDClassifier
    from skbgmd.aggregators import HuberMean, Krum, RowWeighting
    from skbgmd.training import register_loss

    class Net(torch.nn.Sequential):
        def __init__(self, width=8):
            super().__init__(torch.nn.Linear(4, width), torch.nn.Dropout(0.2), torch.nn.Linear(width, 2))

    class Loss(torch.nn.Module):
        reduction = "mean"

        def forward(self, predicted, y):
            return torch.nn.functional.cross_entropy(predicted, y, reduction=self.reduction)

    register_loss(Loss, targets="classes")

    class FirstRow(RowWeighting):
        def _weigh(self, rows):
            return np.eye(rows.n_rows)[0]

    @contextmanager
    def dask():
        from dask.distributed import Client, LocalCluster

        local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
        with LocalCluster(**local) as cluster, Client(cluster):
            yield

    @contextmanager
    def ray():
        import ray
        from ray.util.joblib import register_ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        register_ray()
        yield
        ray.shutdown()

    if __name__ == "__main__":
        torch.set_num_threads(1)
        X = np.random.default_rng(0).normal(size=(120, 4))
        y = X[:, 0] > X[:, 1]
        settings = {"criterion": Loss, "gradients": "one_pass", "max_epochs": 3, "strength": None, "random_state": 0}
        grid = {"lr": [1e-6, 0.02], "aggregator": [Krum(), HuberMean(c=1.0), FirstRow()]}
        search = GridSearchCV(BlockGMDClassifier(Net, **settings), grid, cv=2, error_score="raise")
        expected = clone(search).fit(X, y).cv_results_
        with globals()[sys.argv[1]](), joblib.parallel_config(sys.argv[1], n_jobs=2):
            found = search.fit(X, y).cv_results_
        for name in ("split0_test_score", "split1_test_score", "rank_test_score"):
            np.testing.assert_array_equal(found[name], expected[name])
        print("the same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_classes_of_a_script(tmp_path, backend):
    pytest.importorskip("dask.distributed" if backend == "dask" else "ray")
    script = tmp_path / "search.py"
    script.write_text(dedent(SCRIPT), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(skbgmd.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, script, backend], env=environment, capture_output=True, text=True, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("the same\n")


@pytest.mark.slow
def test_the_example_of_the_documentation(client):
    page = (Path(__file__).parents[2] / "docs" / "training.rst").read_text(encoding="utf-8")
    section = page[page.index("Searches on a cluster\n~~~") :]
    code = re.search(r"code-block:: python\n\n((?: {4}.*\n|\n)+)", section)[1]
    names = {"__name__": "__main__"}
    exec(compile(dedent(code), "training.rst", "exec"), names)
    alone = sklearn.clone(names["search"]).fit(names["X"], names["y"])
    assert_same(alone, names["search"])
