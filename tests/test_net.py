"""The robust training step against skorch's own, and everything else of skorch around it."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.helper import SliceDataset

from skbgmd import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.aggregators import Aggregate, BlockGeometricMedian, Mean, NearestNeighborMixing
from skbgmd.aggregators.base import Aggregator
from skbgmd.corruption import BitFlip, NonFinite
from skbgmd.samples import SampleDataset

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def data(rng):
    X = rng.normal(size=(150, 4))
    return X, (X[:, 0] - X[:, 1] > 0).astype(np.int64)


class Frozen(torch.nn.Module):
    """Shares a layer, has a frozen one and one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.first, self.shared = torch.nn.Linear(4, 4).double(), torch.nn.Linear(4, 4).double()
        self.last, self.unused = torch.nn.Linear(4, 2).double(), torch.nn.Linear(3, 3).double()
        self.first.requires_grad_(False)

    def forward(self, X):
        return self.last(self.shared(torch.tanh(self.shared(self.first(X)))))


class TakesDict(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2).double()

    def forward(self, a, b):
        return self.layer(torch.cat([a, b], dim=1))


class Embeds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = torch.nn.Embedding(7, 3, sparse=True).double(), torch.nn.Linear(3, 2).double()

    def forward(self, X):
        return self.last(self.table(X).mean(dim=1))


def make(kind):
    return {"frozen": Frozen, "dict": TakesDict, "embedding": Embeds}.get(
        kind, lambda: torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).double()
    )()


def parameters_after(cls, kind, X, y, **settings):
    torch.manual_seed(1)
    net = cls(make(kind), max_epochs=3, verbose=0, iterator_train__shuffle=True, batch_size=37, lr=0.2, **settings)
    net.fit(X, y)
    return net, torch.cat([p.detach().flatten() for p in net.module_.parameters()])


@pytest.mark.parametrize("kind", ["plain", "frozen", "dict", "embedding", "sum", "slices", "no validation"])
@pytest.mark.parametrize("robust", [{"aggregator": "mean", "group_size": 8}, {"group_size": None}], ids=["mean", "one"])
def test_the_mean_is_plain_training(kind, robust, data, rng):
    X, y = data
    settings = {"criterion": torch.nn.CrossEntropyLoss}
    if kind == "dict":
        X = {"a": X[:, :1], "b": X[:, 1:]}
    if kind == "embedding":
        X = rng.integers(0, 7, size=(150, 3))
    if kind == "sum":
        settings |= {"criterion__reduction": "sum", "optimizer__momentum": 0.5}
    if kind == "no validation":
        settings["train_split"] = None
    if kind == "slices":
        dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
        X = SliceDataset(dataset)
    plain, expected = parameters_after(NeuralNetClassifier, kind, X, y, **settings)
    net, found = parameters_after(RobustNeuralNetClassifier, kind, X, y, **settings, **robust)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(net.history[:, "train_loss"], plain.history[:, "train_loss"], rtol=1e-9)


def test_the_other_two_nets(data):
    X, _ = data
    y = X[:, :2] @ [[1.0, 2.0], [0.0, 1.0]]
    for robust, plain in ((RobustNeuralNetRegressor, NeuralNetRegressor), (RobustNeuralNet, NeuralNet)):
        settings = {"criterion": torch.nn.MSELoss}
        net, found = parameters_after(robust, "plain", X, y, aggregator="mean", **settings)
        _, expected = parameters_after(plain, "plain", X, y, **settings)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
        assert isinstance(net, plain)


def classifier(**settings):
    settings = {"lr": 0.2, "max_epochs": 5, "verbose": 0, "batch_size": 64, **settings}
    return RobustNeuralNetClassifier(make("plain"), criterion=torch.nn.CrossEntropyLoss, **settings)


@pytest.mark.parametrize("aggregator", ["mean", "geometric_median", "block_geometric_median"])
def test_flipped_gradients_ruin_the_mean_alone(aggregator, data):
    net = classifier(aggregator=aggregator, gradient_corruption=BitFlip(0.4), max_epochs=60, random_state=0).fit(*data)
    score = net.score(*data)
    assert (score < 0.7) if aggregator == "mean" else (score > 0.9), score


def test_dead_rows(data):
    net = classifier(gradient_corruption=NonFinite(0.4), random_state=0, max_epochs=20).fit(*data)
    assert net.score(*data) > 0.9
    with (
        pytest.warns(UserWarning, match="No rule withstands"),
        pytest.raises(ValueError, match="More than half of the rows"),
    ):
        classifier(gradient_corruption=NonFinite(0.6), random_state=0).fit(*data)


def test_history_records_what_the_rule_does(data):
    history = classifier().fit(*data).history
    assert all(0.0 <= share <= 0.5 for share in history[:, "distrusted_weight"])
    assert all(0.0 < share <= 1.0 for share in history[:, "selected_mass"])
    assert all(seconds > 0.0 for seconds in history[:, "aggregation_time"])
    assert "selected_mass" not in classifier(aggregator="krum").fit(*data).history[0]
    assert "distrusted_weight" not in classifier(aggregator="coordinate_median").fit(*data).history[0]


class Gradients(Callback):
    """Keeps the norm of the gradient that the optimizer is about to see."""

    def on_train_begin(self, net, **kwargs):
        self.norms = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.norms.append(float(torch.cat([p.grad.flatten() for _, p in named_parameters]).norm()))


def test_callbacks_of_skorch(data, tmp_path):
    gradients = Gradients()
    callbacks = [
        ("clip", GradientNormClipping(0.01)),
        ("gradients", gradients),
        ("stop", EarlyStopping(patience=1, threshold=1.0, sink=lambda text: None)),
        ("schedule", LRScheduler("StepLR", step_size=1, gamma=0.5)),
        ("checkpoint", Checkpoint(dirname=tmp_path, f_aggregator="aggregator.pt", monitor=None)),
    ]
    net = classifier(callbacks=callbacks, max_epochs=50).fit(*data)
    assert len(net.history) == 2  # early stopping
    assert gradients.norms
    assert max(gradients.norms) <= 0.01 * (1 + 1e-4)
    assert net.optimizer_.param_groups[0]["lr"] < 0.2
    assert (tmp_path / "aggregator.pt").exists()


class CountingState(Aggregator):
    """Counts the calls whose state was kept."""

    def __call__(self, rows, state=None):
        weights = rows.weights / rows.weights.sum()
        return Aggregate(rows.combine(weights), weights), (state or 0) + 1


class Spy(BitFlip):
    """Remembers which rows it was given to corrupt."""

    seen: list

    def apply_(self, gradients, random_state=None):
        chosen = super().apply_(gradients, random_state)
        Spy.seen.append(sorted(chosen.tolist()))
        return chosen


def test_the_state_counts_once_a_batch_with_closures(data):
    Spy.seen = []
    net = classifier(
        aggregator=CountingState(),
        optimizer=torch.optim.LBFGS,
        optimizer__max_iter=4,
        train_split=None,
        max_epochs=2,
        batch_size=50,
        gradient_corruption=Spy(0.3, scale=1.0),
        random_state=0,
        lr=0.01,
    ).fit(*data)
    assert net.aggregator_.state == net.aggregator_.n_batches == 6
    assert len(Spy.seen) > 6  # closures
    runs = [chosen for i, chosen in enumerate(Spy.seen) if i == 0 or chosen != Spy.seen[i - 1]]
    assert len(runs) <= 6  # within a batch the same rows
    assert len(runs) > 1  # from batch to batch others


class Accumulating(RobustNeuralNetClassifier):
    """Gradient accumulation as skorch's FAQ has it."""

    def __init__(self, *args, acc_steps=2, **kwargs):
        super().__init__(*args, **kwargs)
        self.acc_steps = acc_steps

    def get_loss(self, *args, **kwargs):
        return super().get_loss(*args, **kwargs) / self.acc_steps

    def train_step(self, batch, **fit_params):
        n_train_batches = len(self.history[-1, "batches"])
        step = self.train_step_single(batch, **fit_params)
        if n_train_batches % self.acc_steps == 0:
            self.optimizer_.step()
            self.optimizer_.zero_grad()
        return step


def test_gradient_accumulation(data):
    settings = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "max_epochs": 2, "lr": 0.2}
    module = make("plain")
    found = Accumulating(copy.deepcopy(module), aggregator="mean", batch_size=25, **settings).fit(*data)
    expected = NeuralNetClassifier(copy.deepcopy(module), batch_size=50, **settings).fit(*data)
    for ours, theirs in zip(found.module_.parameters(), expected.module_.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert found.aggregator_.n_batches == 12


@pytest.mark.parametrize("mixed", [False, True])
def test_a_resumed_training_goes_on_exactly(data, mixed):
    rule = BlockGeometricMedian(beta=0.3, selection="sample", complement="memory", random_state=3)
    settings = {
        "aggregator": NearestNeighborMixing(rule) if mixed else rule,
        "optimizer__momentum": 0.9,
        "gradient_corruption": BitFlip(0.2),
        "random_state": 5,
        "train_split": None,
    }
    module = make("plain")
    whole = RobustNeuralNetClassifier(
        copy.deepcopy(module), criterion=torch.nn.CrossEntropyLoss, verbose=0, max_epochs=4, **settings
    ).fit(*data)
    half = RobustNeuralNetClassifier(
        copy.deepcopy(module), criterion=torch.nn.CrossEntropyLoss, verbose=0, max_epochs=2, **settings
    ).fit(*data)
    files = {name: io.BytesIO() for name in ("f_params", "f_optimizer", "f_aggregator")}
    half.save_params(**files)
    for file in files.values():
        file.seek(0)
    resumed = RobustNeuralNetClassifier(
        copy.deepcopy(module), criterion=torch.nn.CrossEntropyLoss, verbose=0, max_epochs=2, **settings
    ).initialize()
    resumed.load_params(**files)
    resumed.partial_fit(*data)
    for ours, theirs in zip(resumed.module_.parameters(), whole.module_.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    # The state matters: without it the way is another one.
    half.aggregator_.state = None
    half.partial_fit(*data)
    assert not torch.equal(half.module_[0].weight, whole.module_[0].weight)


def test_pickle_and_clone(data):
    net = classifier(aggregator=BlockGeometricMedian(complement="memory")).fit(*data)
    again = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(again.predict_proba(data[0]), net.predict_proba(data[0]))
    assert torch.equal(again.aggregator_.state.memory, net.aggregator_.state.memory)
    again.partial_fit(*data)
    copied = clone(net)
    assert copied.get_params()["aggregator__complement"] == "memory"
    assert not copied.initialized_


def test_parameters_change_in_the_middle(data):
    net = classifier(aggregator=BlockGeometricMedian(beta=0.5), max_epochs=1).fit(*data)
    net.partial_fit(*data)
    assert net.aggregator_.state.step == 4
    net.set_params(aggregator__beta=0.25, group_size=4).partial_fit(*data)
    assert net.aggregator_.aggregator.beta == 0.25
    assert net.aggregator_.state.step == 2  # another rule begins anew
    net.set_params(aggregator=Mean()).partial_fit(*data)
    assert isinstance(net.aggregator_.aggregator, Mean)


def test_grid_search_over_the_rule(data):
    net = classifier(aggregator=BlockGeometricMedian(), train_split=None, max_epochs=1)
    search = GridSearchCV(net, {"aggregator__beta": [0.2, 1.0], "lr": [1e-9, 0.5]}, cv=2).fit(*data)
    assert search.best_params_["lr"] == 0.5


def test_batch_normalization_in_groups_of_one(data):
    X, y = data
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)).double()
    settings = {"criterion": torch.nn.CrossEntropyLoss, "verbose": 0, "max_epochs": 2}
    RobustNeuralNetClassifier(module, group_size=2, **settings).fit(X, y)
    net = RobustNeuralNetClassifier(module, group_size=1, **settings).initialize()
    before = copy.deepcopy(net.module_.state_dict())
    with pytest.raises(ValueError, match=r"at least two samples .* layer '0'.*Raise group_size, or use torch.nn.Group"):
        net.partial_fit(X, y)
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())


@pytest.mark.parametrize("steps", [2, 3])
def test_local_steps(data, steps):
    X, y = (torch.from_numpy(part[:24]) for part in data)
    net = classifier(aggregator="mean", group_size=12, local_steps=steps, batch_size=24, train_split=None)
    net.set_params(max_epochs=1, lr=0.1).initialize()
    start = copy.deepcopy(net.module_)
    ends = []
    for part in (slice(0, 12), slice(12, 24)):
        local = copy.deepcopy(start)
        optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
        for piece in range(steps):
            few = slice(part.start + piece * 12 // steps, part.start + (piece + 1) * 12 // steps)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(local(X[few]), y[few]).backward()
            optimizer.step()
        ends.append([p.detach() for p in local.parameters()])
    net.partial_fit(X, y)
    for found, *moved in zip(net.module_.parameters(), *ends, strict=True):
        torch.testing.assert_close(found.detach(), sum(moved) / 2, rtol=1e-9, atol=1e-12)


def test_trust(data):
    X, y = data
    dataset = SampleDataset(X, y)
    mean = classifier(aggregator="mean").fit(dataset, y)
    trust = mean.sample_trust(len(y))
    assert np.isnan(trust).sum() == 30  # held out
    np.testing.assert_allclose(trust[~np.isnan(trust)], 1.0)
    wrong = np.arange(0, len(y), 5)
    flipped = y.copy()
    flipped[wrong] = 1 - flipped[wrong]
    net = classifier(group_size=1, aggregator="geometric_median", train_split=None, max_epochs=30).fit(X, flipped)
    trust = net.sample_trust(len(y))
    assert trust[wrong].mean() < 0.5 * np.delete(trust, wrong).mean()
    assert np.isnan(classifier(aggregator="coordinate_median").fit(X, y).sample_trust(len(y))).all()


def test_weights_of_samples(data):
    X, y = data[0][:40], data[1][:40]
    weight = np.random.default_rng(0).integers(1, 4, size=40).astype(float)
    results = []
    for factor in (1.0, 3.0):
        torch.manual_seed(2)
        net = classifier(train_split=None, group_size=5).fit(SampleDataset(X, y, factor * weight), y)
        results.append(torch.cat([p.detach().flatten() for p in net.module_.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)
    torch.manual_seed(2)
    module = make("plain")
    settings = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "batch_size": 200}
    weighted = RobustNeuralNetClassifier(copy.deepcopy(module), aggregator="mean", group_size=8, **settings)
    repeated = NeuralNetClassifier(copy.deepcopy(module), **settings)
    weighted.fit(SampleDataset(X, y, weight), y)
    times = weight.astype(int)
    repeated.fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    for ours, theirs in zip(weighted.module_.parameters(), repeated.module_.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_weights_need_a_criterion_that_can_be_told_not_to_reduce(data):
    class Loss(torch.nn.Module):
        def forward(self, predicted, y):
            return torch.nn.functional.cross_entropy(predicted, y)

    net = RobustNeuralNetClassifier(make("plain"), criterion=Loss, verbose=0, train_split=None)
    with pytest.raises(ValueError, match="attribute `reduction`"):
        net.fit(SampleDataset(*data, np.ones(150)), data[1])


class RowSpy(Aggregator):
    """Remembers the weights of the rows it was given."""

    def __call__(self, rows, state=None):
        weights = rows.weights / rows.weights.sum()
        return Aggregate(rows.combine(weights), weights), [*(state or []), rows.weights]


def test_a_row_for_each_client(data):
    X, y = data
    clients = np.repeat(["a", "b", "c"], [100, 40, 10])
    net = classifier(aggregator=RowSpy(), batch_size=20, train_split=None, max_epochs=1)
    net.fit(SampleDataset(X, y, None, clients), y)
    assert [weights.tolist() for weights in net.aggregator_.state] == [[1.0, 1.0, 0.5]] * 5


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"aggregator": "best"}, ValueError, "aggregator must be one of"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1; found 0"),
        ({"group_size": 2.5}, TypeError, "group_size must be an integer"),
        ({"local_steps": 0}, ValueError, "local_steps must be at least 1"),
        ({"gradient_corruption": "flip"}, TypeError, "gradient_corruption must be None or have a method apply_"),
    ],
)
def test_bad_parameters(settings, error, match):
    with pytest.raises(error, match=match):
        classifier(**settings).initialize()


def test_compiled_modules(data, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module, **settings: compiled.append(module) or module)
    net = classifier(compile=True, max_epochs=10).fit(*data)
    assert len(compiled) >= 1
    assert net.score(*data) > 0.8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_device(data):
    net = classifier(device="cuda", aggregator=BlockGeometricMedian(complement="memory")).fit(*data)
    assert net.score(*data) > 0.8
    assert net.aggregator_.state.memory.is_cuda


def test_a_memory_begins_anew_when_parameters_are_frozen_or_thawed():
    with torch.random.fork_rng(devices=[]):
        module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    net = RobustNeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        aggregator=BlockGeometricMedian(0.3, complement="memory"),
        verbose=0,
    ).initialize()
    batch = (torch.linspace(-1.0, 1.0, 64).view(16, 4), torch.arange(16) % 2)
    for frozen in (False, True, False):
        net.module_[0].requires_grad_(not frozen)
        net.train_step(batch)
        net.aggregator_.commit()
        columns = sum(p.numel() for p in net.module_.parameters() if p.requires_grad)
        assert len(net.aggregator_.state.memory) == columns
