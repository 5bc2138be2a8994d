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
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, GradientNormClipping, LRScheduler
from skorch.dataset import Dataset as SkorchDataset
from skorch.dataset import ValidSplit
from skorch.helper import SliceDataset

from nets import Narrow, Renamed, dataset_of
from skbgmd import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.aggregators import (
    Aggregate,
    BlockGeometricMedian,
    Krum,
    Mean,
    NearestNeighborMixing,
    NonFiniteRowsError,
    TrimmedMean,
)
from skbgmd.aggregators.base import Aggregator
from skbgmd.corruption import BitFlip, NonFinite, SignFlip
from skbgmd.training._estimator.wrapping import robust_class

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
    rule = BlockGeometricMedian(0.5)
    history = classifier(aggregator=rule).fit(*data).history
    assert all(0.0 <= share <= 0.5 for share in history[:, "lower_half_weight"])
    assert all(0.0 < share <= 1.0 for share in history[:, "selected_mass"])
    assert all(seconds > 0.0 for seconds in history[:, "aggregation_time"])
    assert "selected_mass" not in classifier(aggregator="krum").fit(*data).history[0]
    assert "lower_half_weight" not in classifier(aggregator="coordinate_median").fit(*data).history[0]


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
        return Aggregate(rows.weighted_sum(weights), weights), (state or 0) + 1


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


class Informed(SignFlip):
    """Asks the rule for the aggregate of the rows before the attack, at each step."""

    uses_context = True
    seen: list

    def _replace(self, gradients, corrupt, honest, rng, context=None):
        Informed.seen.append((context.step, context.aggregate(gradients)))
        return gradients[corrupt]


@pytest.mark.parametrize("aggregator", ["geometric_median", "block_geometric_median"])
def test_an_attack_knows_the_rule_and_the_step(data, aggregator):
    Informed.seen = []
    settings = {"criterion": torch.nn.CrossEntropyLoss, "aggregator": aggregator, "group_size": 4, "random_state": 0}
    _, expected = parameters_after(RobustNeuralNetClassifier, "plain", *data, **settings)
    attack = Informed(corrupt=[1])
    net, found = parameters_after(RobustNeuralNetClassifier, "plain", *data, **settings, gradient_corruption=attack)
    assert [step for step, _ in Informed.seen] == list(range(net.aggregator_.n_batches))
    # The rule was asked, and is as if it hadn't been.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


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


def test_trust(data):
    X, y = data
    dataset = dataset_of(X, y)
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
        net = classifier(train_split=None, group_size=5).fit(dataset_of(X, y, factor * weight), y)
        results.append(torch.cat([p.detach().flatten() for p in net.module_.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-12)
    torch.manual_seed(2)
    module = make("plain")
    settings = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "batch_size": 200}
    weighted = RobustNeuralNetClassifier(copy.deepcopy(module), aggregator="mean", group_size=8, **settings)
    repeated = NeuralNetClassifier(copy.deepcopy(module), **settings)
    weighted.fit(dataset_of(X, y, weight), y)
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
        net.fit(dataset_of(*data, np.ones(150)), data[1])


class RowSpy(Aggregator):
    """Remembers the weights of the rows it was given."""

    def __call__(self, rows, state=None):
        weights = rows.weights / rows.weights.sum()
        return Aggregate(rows.weighted_sum(weights), weights), [*(state or []), rows.weights]


def test_a_row_for_each_client(data):
    X, y = data
    clients = np.repeat(["a", "b", "c"], [100, 40, 10])
    net = classifier(aggregator=RowSpy(), batch_size=20, train_split=None, max_epochs=1)
    net.fit(dataset_of(X, y, None, clients), y)
    assert [weights.tolist() for weights in net.aggregator_.state] == [[1.0, 1.0, 0.5]] * 5


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"aggregator": "best"}, ValueError, "aggregator must be one of"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1; found 0"),
        ({"group_size": 2.5}, TypeError, "group_size must be an integer"),
        ({"local_steps": 0}, ValueError, "local_steps must be at least 1"),
        ({"gradient_corruption": "flip"}, TypeError, "gradient_corruption must be None or have a method apply_"),
        (
            {"gradient_corruption": BitFlip},
            TypeError,
            r"gradient_corruption must be an instance; found .*, a class; an instance is BitFlip\(\)",
        ),
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


def test_training_on_a_cuda_device_is_that_on_the_processor(data, cuda):
    nets = []
    for device in ("cpu", str(cuda)):
        torch.manual_seed(0)
        nets.append(classifier(device=device, aggregator=BlockGeometricMedian(complement="memory")).fit(*data))
    assert nets[1].aggregator_.state.memory.is_cuda
    here, there = (net.predict_proba(data[0]) for net in nets)
    np.testing.assert_allclose(there, here, atol=1e-3)


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


def plain_data(data):
    return data[0].astype(np.float32), data[1]


def net_of(module=None, kind=RobustNeuralNetClassifier, **settings):
    settings = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "max_epochs": 3, **settings}
    return kind(torch.nn.Linear(4, 2) if module is None else module, **settings)


class Ruin(Callback):
    """Puts NaN into a parameter, as an optimizer that overflows does."""

    def __init__(self, when):
        self.when = when

    def on_batch_end(self, net, training=False, **kwargs):
        if training and (len(net.history), len(net.history[-1, "batches"])) == self.when:
            with torch.no_grad():
                net.module_.bias[0] = float("nan")


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"group_size": None},
        {"group_size": None, "aggregator": "mean"},
        {"group_size": None, "aggregator": "coordinate_median"},
        {"group_size": 8, "aggregator": "mean"},
        {"group_size": 8},
        {"group_size": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("max_epochs", [1, 20])
def test_diverged_parameters_are_an_error(data, settings, max_epochs):
    X, y = plain_data(data)
    settings = {"kind": RobustNeuralNetRegressor, "criterion": torch.nn.MSELoss, "lr": 1e20, **settings}
    net = net_of(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)), max_epochs=max_epochs, **settings)
    if max_epochs == 1:
        net.set_params(batch_size=50)
    with pytest.raises(NonFiniteRowsError, match=r"not finite.* A smaller lr, or data and targets"):
        net.fit(1e15 * X, y[:, None].astype(np.float32))


@pytest.mark.parametrize("group_size", [None, 8])
def test_parameters_that_the_last_step_ruined_are_an_error(data, group_size):
    X, y = plain_data(data)
    net = net_of(group_size=group_size, callbacks=[Ruin((3, 2))], batch_size=100)
    with pytest.raises(NonFiniteRowsError, match=r"parameters must stay finite. In epoch \d the parameters 'bias' are"):
        net.fit(X, y)
    first = {"monitor": "train_loss", "lower_is_better": False, "patience": 9}
    stopping = EarlyStopping(load_best=True, sink=lambda text: None, **first)
    saved = net_of(group_size=group_size, callbacks=[Ruin((3, 2)), stopping], batch_size=100).fit(X, y)
    assert torch.isfinite(saved.module_.bias).all()


@pytest.mark.parametrize(
    ("settings", "n"),
    [({"group_size": 64, "batch_size": 50}, 150), ({}, 7), ({"group_size": 150}, 150), ({"group_size": 9000}, 150)],
    ids=str,
)
def test_one_group_in_every_batch_is_told_once(data, settings, n):
    X, y = (part[:n] for part in plain_data(data))
    net = net_of(**{"group_size": 8, "batch_size": 150, **settings})
    match = rf"group_size=\d+ and no batch of more than {min(n, net.batch_size)} samples, with batch_size="
    with pytest.warns(UserWarning, match=match) as caught:
        net.fit(X, y)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="group_size must be smaller than the batches"):
        net.partial_fit(X, y)


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        ({"group_size": None}, 150),
        ({"aggregator": "mean", "group_size": 500}, 150),
        ({"group_size": 1}, 1),
        ({"group_size": 30, "batch_size": 64}, 150),  # the last batch has one group
    ],
    ids=str,
)
def test_where_nothing_is_lost_nothing_is_told(data, settings, n):
    X, y = (part[:n] for part in plain_data(data))
    net_of(**settings).fit(X, y)


@pytest.mark.parametrize("group_size", [1, 8])
def test_one_client_is_told(data, group_size):
    X, y = plain_data(data)
    net = net_of(group_size=group_size)
    with pytest.warns(UserWarning, match="must be several; found one client"):
        net.fit(dataset_of(X, y, None, np.zeros(150)), y)
    net.fit(dataset_of(X, y, None, np.arange(150) % 2), y)


def three_classes(rng):
    X = rng.normal(size=(120, 4)).astype(np.float32)
    y = np.repeat([0, 1, 2], 40)
    X[y > 0, 0] += 4.0
    X[y == 2, 1] += 4.0
    return X, y


@pytest.mark.parametrize("data_kind", ["arrays", "subset", "tensors", "held out"])
@pytest.mark.parametrize("kind", [RobustNeuralNetClassifier, RobustNeuralNet])
def test_sorted_classes_are_dealt_out(rng, data_kind, kind):
    X, y = three_classes(rng)
    given = (X, y)
    if data_kind == "subset":
        given = (torch.utils.data.Subset(SkorchDataset(X, y), np.arange(0, 120, 2)), None)
    if data_kind == "tensors":
        given = (torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None)
    settings = {"lr": 0.3, "max_epochs": 40, "kind": kind}
    if data_kind == "held out":
        settings["train_split"] = ValidSplit(4, stratified=True)
    net = net_of(torch.nn.Linear(4, 3), **settings).fit(*given)
    assert (net.predict_proba(X).argmax(axis=1) == y).mean() > 0.85
    # Predictions are in the order of the samples, of loaders for training too.
    expected = net.module_(torch.from_numpy(X)).detach()
    torch.testing.assert_close(net.forward(SkorchDataset(X, y), training=True), expected)


def test_shuffled_batches_are_those_that_were_drawn(rng):
    X, y = three_classes(rng)
    seen = []

    class Look(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            seen.append(sorted(batch.positions.tolist()))

    for deal in ({}, {"iterator_train__stratify": None}):
        torch.manual_seed(5)
        net_of(torch.nn.Linear(4, 3), callbacks=[Look()], iterator_train__shuffle=True, batch_size=50, **deal).fit(X, y)
    assert seen[:9] == seen[9:]


def test_sorted_classes_that_are_not_dealt_out_are_told_of(rng):
    X, y = three_classes(rng)
    loader = {"iterator_train": torch.utils.data.DataLoader}
    for settings in (loader, {"iterator_train__stratify": None}):
        with pytest.warns(UserWarning, match="first batch is sorted by class"):
            net_of(torch.nn.Linear(4, 3), max_epochs=2, **settings).fit(X, y)
        # Not where it is as it should be.
        for more in ({"iterator_train__shuffle": True}, {"group_size": 1}, {"group_size": None}):
            net_of(torch.nn.Linear(4, 3), **settings, **more).fit(X, y)
        net_of(torch.nn.Linear(4, 3), aggregator="mean", **settings).fit(X, y)
    net_of(torch.nn.Linear(4, 3)).fit(dataset_of(X, y, None, y), y)


BINARY = {
    "logits": (RobustNeuralNet, torch.nn.BCEWithLogitsLoss, lambda y: y[:, None]),
    "one axis": (RobustNeuralNet, torch.nn.BCEWithLogitsLoss, lambda y: y),
    "regressor": (RobustNeuralNetRegressor, torch.nn.BCEWithLogitsLoss, lambda y: y[:, None]),
    "probabilities": (RobustNeuralNet, torch.nn.BCELoss, lambda y: y[:, None]),
    "signs": (RobustNeuralNet, torch.nn.SoftMarginLoss, lambda y: 2 * y[:, None] - 1),
    "classifier": (robust_class(NeuralNetBinaryClassifier), torch.nn.BCEWithLogitsLoss, lambda y: y),
    "subclass": (RobustNeuralNet, type("Own", (torch.nn.BCEWithLogitsLoss,), {}), lambda y: y[:, None]),
    "margin": (RobustNeuralNet, torch.nn.MultiMarginLoss, lambda y: y.astype(np.int64)),
}


@pytest.mark.parametrize("name", list(BINARY))
def test_classes_of_other_losses_are_dealt_out_or_told_of(rng, name):
    kind, criterion, of_labels = BINARY[name]
    X, labels = rng.normal(size=(96, 4)).astype(np.float32), np.repeat(np.float32([0.0, 1.0]), 48)
    y = of_labels(labels)
    layers = [torch.nn.Linear(4, 2 if name == "margin" else 1)]
    layers += [torch.nn.Sigmoid()] if name == "probabilities" else []
    layers += [torch.nn.Flatten(0)] if y.ndim == 1 and name != "margin" else []
    seen = []

    class Look(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            if training:
                seen.append(batch[1].flatten().clone())

    def trained(**settings):
        given = {"criterion": criterion, "batch_size": 96, "max_epochs": 1, "callbacks": [Look()], **settings}
        return net_of(torch.nn.Sequential(*layers), kind=kind, **given).fit(X, y)

    trained()
    shares = (seen[0] > 0).view(12, 8).sum(dim=1)
    assert shares.tolist() == [4] * 12
    for settings in ({"iterator_train": torch.utils.data.DataLoader}, {"iterator_train__stratify": None}):
        with pytest.warns(UserWarning, match="first batch is sorted by class"):
            trained(**settings)
        trained(iterator_train__shuffle=True, **settings)
        trained(group_size=1, **settings)


def test_numbers_and_many_labels_are_no_classes(rng):
    X, half = rng.normal(size=(96, 4)).astype(np.float32), np.repeat(np.float32([0.0, 1.0]), 48)
    loader = {"iterator_train": torch.utils.data.DataLoader, "batch_size": 96}
    many = np.column_stack([half, half[::-1]])
    for n_outputs, y, criterion in ((1, half[:, None], torch.nn.MSELoss), (2, many, torch.nn.BCEWithLogitsLoss)):
        for settings in ({}, loader):
            net_of(torch.nn.Linear(4, n_outputs), kind=RobustNeuralNet, criterion=criterion, **settings).fit(X, y)
    # Shares are dealt out by nothing, but what is above a half and what isn't overrule one another as well.
    y = np.sort(rng.uniform(size=96).astype(np.float32))[:, None]
    net = net_of(torch.nn.Linear(4, 1), kind=RobustNeuralNet, criterion=torch.nn.BCEWithLogitsLoss, batch_size=96)
    with pytest.warns(UserWarning, match="sorted by class"):
        net.fit(X, y)


class Squashed(torch.nn.Module):
    def __init__(self, n_outputs, squash):
        super().__init__()
        self.layer, self.squash = torch.nn.Linear(4, n_outputs), squash

    def forward(self, X):
        return self.squash(self.layer(X))


def binary(module, **settings):
    return net_of(
        module, kind=robust_class(NeuralNetBinaryClassifier), criterion=torch.nn.BCEWithLogitsLoss, **settings
    )


@pytest.mark.parametrize("settings", [{"group_size": None}, {"group_size": 8}, {"group_size": 1}], ids=str)
def test_what_is_squashed_twice_is_told(data, settings):
    X, y = plain_data(data)
    layers = [torch.nn.Linear(4, 2), torch.nn.Softmax(dim=-1)]
    for module in (torch.nn.Sequential(*layers), Squashed(2, lambda values: values.softmax(dim=1))):
        with pytest.warns(
            UserWarning, match="must give logits for the criterion CrossEntropyLoss; found prob"
        ) as caught:
            net_of(module, **settings).fit(X, y)
        assert len(caught) == 1
    y = y.astype(np.float32)
    for module in (torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid()), Squashed(1, torch.sigmoid)):
        with pytest.warns(UserWarning, match="must give logits for the criterion BCEWithLogitsLoss; found prob"):
            binary(module, **settings).fit(X, y)


@pytest.mark.parametrize("settings", [{"group_size": None}, {"group_size": 8}, {"group_size": 1}], ids=str)
def test_logits_are_no_probabilities(data, settings):
    X, y = plain_data(data)
    for squash in (torch.nn.functional.log_softmax, torch.relu, lambda values: 0.0 * values + 0.5 * values.sum()):
        squashed = (
            (lambda values, squash=squash: squash(values, dim=1))
            if squash is torch.nn.functional.log_softmax
            else squash
        )
        net_of(Squashed(2, squashed), gradients="micro_batches", **settings).fit(X, y)
    # Logits between zero and one.
    binary(Squashed(1, lambda values: 0.5 + 0.1 * torch.tanh(values)), **settings).fit(X, y.astype(np.float32))
    net_of(Squashed(2, lambda values: values.softmax(dim=1)), criterion=torch.nn.NLLLoss, **settings).fit(X, y)


@pytest.mark.parametrize("settings", [{"group_size": None}, {"group_size": 8}, {"group_size": 1}], ids=str)
def test_logarithms_are_taken_by_skorch(data, settings):
    net = net_of(criterion=torch.nn.NLLLoss, **settings).initialize()
    before = net.module_.weight.detach().clone()
    with pytest.raises(ValueError, match="must give probabilities for the criterion NLLLoss"):
        net.partial_fit(*plain_data(data))
    assert torch.equal(net.module_.weight, before)


class RobustRenamed(Renamed, RobustNeuralNetClassifier):
    """Robust, with another name for the loss and for the module."""


@pytest.mark.parametrize("settings", [{"group_size": None}, {}, {"group_size": 1}, {"local_steps": 2}], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_and_modules_under_another_name(data, settings, weighted):
    X, y = plain_data(data)
    weight = np.arange(1.0, 151.0) if weighted else None
    module = torch.nn.Linear(4, 2)
    net = net_of(copy.deepcopy(module), kind=RobustRenamed, **settings).fit(dataset_of(X, y, weight), y)
    expected = net_of(module, gradients="micro_batches", **settings).fit(dataset_of(X, y, weight), y)
    torch.testing.assert_close(net.network_.weight, expected.module_.weight)
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    with pytest.raises(ValueError, match="batch normalization"):
        net_of(module, kind=RobustRenamed, group_size=1).fit(X, y)


def test_a_loss_that_is_not_there(data):
    kind = type("Net", (RobustNeuralNetClassifier,), {"initialize_criterion": Renamed.initialize_criterion})
    with pytest.raises(ValueError, match=r"initialize_criterion must set criterion_.*found \['loss'\]"):
        net_of(kind=kind).fit(*plain_data(data))


class Averages(torch.nn.CrossEntropyLoss):
    """Gives a mean, whatever its reduction."""

    def forward(self, predicted, target):
        return torch.nn.functional.cross_entropy(predicted, target)


@pytest.mark.parametrize("settings", [{"group_size": None}, {"group_size": 8}, {"gradients": "micro_batches"}], ids=str)
def test_losses_that_are_means_have_none_of_single_samples(data, settings):
    X, y = plain_data(data)
    net = net_of(criterion=Averages, **settings).initialize()
    before = net.module_.weight.detach().clone()
    match = r"criterion must give a loss for each sample where its reduction is 'none', for sample_weight.*shape \(\)"
    with pytest.raises(ValueError, match=match):
        net.partial_fit(dataset_of(X, y, np.arange(1.0, 151.0)), y)
    assert torch.equal(net.module_.weight, before)
    if settings["group_size" if "group_size" in settings else "gradients"] is not None:
        weights = {"criterion__weight": torch.tensor([1.0, 2.0])}
        with pytest.raises(ValueError, match=match):
            net_of(criterion=Averages, **settings, **weights).fit(X, y)
    net_of(criterion=Averages, **settings).fit(X, y)


class Squeezes(torch.nn.Linear):
    def forward(self, X):
        return super().forward(X).squeeze()


@pytest.mark.parametrize("settings", [{"group_size": None}, {"group_size": 1}, {"group_size": 4}], ids=str)
@pytest.mark.parametrize("gradients", ["auto", "micro_batches"])
@pytest.mark.parametrize("kind", ["numbers", "binary", "classes"])
def test_modules_that_squeeze(rng, settings, gradients, kind):
    X = rng.normal(size=(33, 4)).astype(np.float32)
    y = X[:, 0] if kind == "numbers" else (X[:, 0] > 0).astype(np.float32)
    settings = {"gradients": gradients, "batch_size": 8, **settings}
    if kind == "numbers":
        net = net_of(Squeezes(4, 1), kind=RobustNeuralNetRegressor, criterion=torch.nn.MSELoss, **settings)
    elif kind == "binary":
        net = binary(Squeezes(4, 1), **settings)
    else:
        net, y = net_of(Squeezes(4, 2), **settings), y.astype(np.int64)
    net.fit(X, y)
    for n in (1, 8, 9, 33):
        assert net.predict_proba(X[:n]).shape == ((n,) if kind == "numbers" else (n, 2))
        np.testing.assert_allclose(net.predict_proba(X[:n]), net.predict_proba(X)[:n], rtol=1e-5)
    if settings["group_size"] != 4:  # which is one group, and told of
        net.fit(X[:1], y[:1])


class TimeFirst(torch.nn.Module):
    """Gives what isn't of one sample in front, for a loss of its own."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, X):
        return self.layer(X)[None].repeat(3, 1, 1)


def test_other_axes_are_left_alone(data):
    net = net_of(TimeFirst()).initialize()
    assert net.infer(torch.ones(1, 4)).shape == (3, 1, 2)
    assert net.infer(torch.ones(5, 4)).shape == (3, 5, 2)


@pytest.mark.parametrize("group_size", [None, 8])
def test_what_a_loss_says_of_diverged_parameters_is_not_the_cause(data, group_size):
    X, y = plain_data(data)
    sound = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid())
    settings = {"kind": robust_class(NeuralNetBinaryClassifier), "criterion": torch.nn.BCELoss, "batch_size": 50}
    net = net_of(copy.deepcopy(sound), group_size=group_size, **settings, callbacks=[RuinFirst()])
    with pytest.raises(NonFiniteRowsError, match=r"stay finite. In epoch \d the parameters '0\.bias' are"):
        net.fit(X, y.astype(np.float32))
    wrong = net_of(copy.deepcopy(sound), group_size=group_size, **settings)
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        wrong.fit(X, 3.0 * y.astype(np.float32))


class RuinFirst(Callback):
    def on_batch_end(self, net, training=False, **kwargs):
        with torch.no_grad():
            net.module_[0].bias[0] = float("nan")


def test_inputs_without_an_axis_of_samples_are_let_through():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 2)

        def forward(self, x, temperature):
            return self.linear(x) / temperature

    with torch.random.fork_rng(devices=[]):
        net = RobustNeuralNet(Scaled, criterion=torch.nn.CrossEntropyLoss, verbose=0).initialize()
        sizes = {"module__num_embeddings": 9, "module__embedding_dim": 2}
        bag = RobustNeuralNet(torch.nn.EmbeddingBag, torch.nn.MSELoss, verbose=0, **sizes).initialize()
    assert net.infer({"x": torch.zeros(5, 4), "temperature": torch.tensor(2.0)}).shape == (5, 2)
    tokens, offsets = torch.arange(7), torch.tensor([0, 3])
    assert bag.infer(tokens, offsets=offsets).shape == (2, 2)


def test_the_default_rule_is_that_of_the_loss_before_there_is_one():
    net = RobustNeuralNet(torch.nn.Linear, criterion=torch.nn.CrossEntropyLoss, group_size=1)
    assert net.set_params(aggregator__rejection=5.0).aggregator.c == 16.0


def _of_signs(attack, **settings):
    """A training on one class, of whose gradients most have a common direction."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 4)).astype(np.float32)
    settings = {"aggregator": Krum("auto", 5), "max_epochs": 3, "batch_size": 80, "group_size": 8, **settings}
    net = RobustNeuralNetRegressor(
        torch.nn.Linear(4, 1), lr=0.01, verbose=0, train_split=None, gradient_corruption=attack, **settings
    )
    return net.fit(X, (10.0 + X[:, :1]).astype(np.float32))


def test_history_has_the_estimated_share_of_corrupt_rows():
    net = _of_signs(BitFlip(0.3))
    assert net.history[:, "corrupt_share"] == pytest.approx([0.3] * 3)
    assert "corrupt_share" not in _of_signs(BitFlip(0.3), aggregator=Krum(0.3)).history[-1]
    assert _of_signs(None).history[:, "corrupt_share"] == [0.0] * 3


@pytest.mark.parametrize("attack", [BitFlip(0.4), SignFlip(0.4), NonFinite(0.4)])
def test_nearly_half_of_the_rows_corrupt_is_warned_of_once(attack):
    with pytest.warns(UserWarning, match=r"must be fewer than half, .* over epoch 1, 40 % of the rows") as caught:
        net = _of_signs(attack)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="over epoch 4, 40 %"):
        net.partial_fit(np.ones((80, 4), dtype=np.float32), np.full((80, 1), 100.0, dtype=np.float32))


def test_an_estimated_share_is_searched_cloned_and_pickled():
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    net = RobustNeuralNetRegressor(
        torch.nn.Linear(4, 1), aggregator=TrimmedMean(), group_size=4, batch_size=30, max_epochs=2, lr=0.05, verbose=0
    )
    search = GridSearchCV(net, {"aggregator__fraction": [0.2, "auto"]}, cv=2)
    search.fit(X, X[:, :1])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    auto = clone(net).set_params(aggregator=TrimmedMean("auto")).fit(X, X[:, :1])
    again = pickle.loads(pickle.dumps(auto))
    assert again.aggregator_.state == auto.aggregator_.state
    assert len(auto.aggregator_.state.recent) == 4


class BatchSizes(Callback):
    """Notes the sizes of the batches to train on."""

    def on_train_begin(self, net, **kwargs):
        self.sizes = []

    def on_batch_end(self, net, batch, training, **kwargs):
        if training:
            self.sizes.append(len(batch[1]))


@pytest.mark.parametrize("group_size", [1, 4])
@pytest.mark.parametrize("n", [17, 18, 33, 49])
def test_no_group_is_left_alone_at_the_end_of_an_epoch(data, n, group_size):
    X, y = data[0][:n], data[1][:n]
    noted = BatchSizes()
    settings = {"callbacks": [noted], "batch_size": 16, "train_split": None, "max_epochs": 2, "group_size": group_size}
    classifier(**settings).fit(X, y)
    assert len(noted.sizes) == 2 * -(-n // 16)
    assert min(noted.sizes) > group_size
    assert max(noted.sizes) <= 16
    # As skorch has them, where that is asked for, and where there is nothing to compare.
    rest = n % 16
    for others in ({"iterator_train__even": False}, {"aggregator": "mean"}, {"group_size": None}):
        classifier(**{**settings, **others}).fit(X, y)
        assert noted.sizes[n // 16] == rest
    classifier(**settings, iterator_train__drop_last=True).fit(X, y)
    assert noted.sizes == [16] * (2 * (n // 16))


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("group_size", [1, 4])
def test_a_target_at_the_end_does_not_pull_without_a_limit(rng, size, group_size):
    X = rng.normal(size=(33, 3)).astype(np.float32)
    y = X[:, :1].copy()
    y[-1] = size

    def fitted(targets):
        torch.manual_seed(0)
        settings = {"criterion": torch.nn.MSELoss, "batch_size": 16, "train_split": None, "verbose": 0, "max_epochs": 5}
        net = RobustNeuralNetRegressor(torch.nn.Linear(3, 1), group_size=group_size, lr=0.05, **settings)
        return net.fit(X, targets).predict(X)

    np.testing.assert_allclose(fitted(y), fitted(X[:, :1]), atol=0.3)


@pytest.mark.parametrize("nonlinearity", ["auto", None, lambda values: values.softmax(dim=-1).bfloat16()])
def test_nets_of_modules_that_give_bfloat16_predict_and_score(rng, nonlinearity):
    X = rng.normal(size=(60, 3)).astype(np.float32)
    settings = {"module__inputs": 3, "module__outputs": 2, "criterion": torch.nn.CrossEntropyLoss, "verbose": 0}
    net = RobustNeuralNetClassifier(Narrow, predict_nonlinearity=nonlinearity, max_epochs=2, **settings)
    net.fit(X, (X[:, 0] > 0).astype(np.int64))
    assert net.predict_proba(X).dtype == np.float32
    assert net.predict(X).shape == (60,)
    assert net.forward(X).dtype == torch.bfloat16
    assert len(net.history[:, "valid_acc"]) == 2
    numbers = RobustNeuralNetRegressor(Narrow, module__inputs=3, module__outputs=1, verbose=0, max_epochs=2)
    assert np.isfinite(numbers.fit(X, X[:, :1]).score(X, X[:, :1]))
