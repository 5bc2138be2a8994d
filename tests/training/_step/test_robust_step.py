"""The training step and its hook for rows from elsewhere."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from skorch.dataset import Dataset
from torch import nn

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNet, RobustNeuralNetRegressor
from skbgmd.aggregators import GeometricMedian, Mean
from skbgmd.corruption import BitFlip, GradientCorruption, LabelFlip, SearchedInnerProduct
from skbgmd.rows import DenseRows
from skbgmd.training._data.loader import Batch
from skbgmd.training._step.fused_step import FusedStep
from skbgmd.training._step.gradient_matrix import GradientMatrix, GradientRows
from skbgmd.training._step.groups import GroupedBatch

pytestmark = pytest.mark.usefixtures("forked")
X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = X @ np.ones((3, 1), dtype=np.float32)


class WithOthers(RobustNeuralNetRegressor):
    """Rows of two others come before those of the batch, and are far off."""

    def make_rows(self, batch: GroupedBatch, gradients: GradientMatrix, fit_params: dict[str, Any]) -> GradientRows:
        made = super().make_rows(batch, gradients, fit_params)
        assert isinstance(batch, GroupedBatch)
        matrix = made.rows.weighted_sum(np.eye(made.rows.n_rows))
        others = torch.full((2, gradients.n_columns), 1e3)
        rows = DenseRows(torch.cat([others, matrix]), units=gradients.units)
        return made._replace(rows=rows, own=slice(2, None))


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_rows_from_elsewhere_need_no_change_of_the_step(gradients: str) -> None:
    settings = {"group_size": 4, "max_epochs": 1, "gradients": gradients, "train_split": None, "verbose": 0}
    module = torch.nn.Linear(3, 1)
    rule = GeometricMedian(rejection=3.0, tol=1e-9)
    net = WithOthers(module, aggregator=rule, **settings).initialize()
    net.train_step_single((torch.from_numpy(X), torch.from_numpy(Y)))
    found = [p.grad.clone() for p in net.module_.parameters()]
    plain = RobustNeuralNetRegressor(module, aggregator=rule, **settings).initialize()
    module.zero_grad()  # skorch trains a module as it is
    plain.train_step_single((torch.from_numpy(X), torch.from_numpy(Y)))
    # The others are rejected, and what is left is the batch's own.
    for ours, theirs in zip(found, plain.module_.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-3, atol=1e-4)


def test_trust_is_of_the_batchs_own_rows() -> None:
    net = WithOthers(
        torch.nn.Linear(3, 1),
        aggregator=GeometricMedian(rejection=3.0),
        group_size=4,
        max_epochs=1,
        train_split=None,
        verbose=0,
    ).fit(X, Y)
    trust = net.sample_trust(24)
    # Of eight rows two have no weight: six share what eight would.
    assert trust.sum() == pytest.approx(24 * 8 / 6)
    assert (trust > 0.0).all()


class Seen(Mean):
    """Remembers what it was handed."""

    def __init__(self, calls: Any = None) -> None:
        self.calls = calls

    def __call__(self, rows: Any, state: Any = None) -> Any:
        self.calls.append(rows.ids)
        return super().__call__(rows, state)

    def __deepcopy__(self, memo: Any) -> Seen:
        return self


@pytest.mark.parametrize("settings", [{}, {"gradients": "micro_batches"}, {"local_steps": 2}])
@pytest.mark.parametrize("attack", [None, SearchedInnerProduct(corrupt=[0]), LabelFlip(corrupt=[0])])
def test_rules_know_clients_that_come_and_go(settings: dict[str, Any], attack: Any) -> None:
    calls: list[Any] = []
    net = RobustNeuralNetRegressor(
        torch.nn.Linear(3, 1),
        aggregator=Seen(calls),
        gradient_corruption=attack,
        batch_size=4,
        max_epochs=1,
        train_split=None,
        verbose=0,
        **settings,
    ).initialize()
    for clients in (["c", "a", "b"], ["d", "b", "c"]):
        dataset = Dataset(X, Y)
        dataset.clients = np.repeat(clients, 8)
        net.partial_fit(dataset, None)
    assert set(calls) == {("a", "b", "c"), ("b", "c", "d")}
    calls.clear()
    net.set_params(group_size=8, batch_size=-1).partial_fit(X, Y)
    assert set(calls) == {None}


def attacked_clients(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Pairs of the number of rows and those that any attack has replaced, collected from now on."""
    seen: set[Any] = set()
    inner = BitFlip._rows

    def rows(self: Any, n: int, rng: Any, context: Any, stacklevel: int) -> Any:
        found = inner(self, n, rng, context, stacklevel + 1)
        seen.add((n, tuple(found.tolist())))
        return found

    monkeypatch.setattr(GradientCorruption, "_rows", rows)
    return seen


SIX = np.arange(24) % 6


@pytest.mark.parametrize("kind", [BlockGMDRegressor, BlockGMDClassifier])
@pytest.mark.parametrize("attack", [BitFlip(corrupt=[5]), LabelFlip(corrupt=[5])])
def test_attacks_follow_clients_past_those_without_weight(monkeypatch: Any, kind: Any, attack: Any) -> None:
    y = Y[:, 0] > 0.0 if kind is BlockGMDClassifier else Y[:, 0]
    seen = attacked_clients(monkeypatch)
    settings = {"aggregator": "coordinate_median", "max_epochs": 1, "random_state": 0}
    model = kind(gradient_corruption=attack, **settings)
    model.fit(X, y, clients=SIX)
    assert seen == {(6, (5,))}
    seen.clear()
    model.fit(X, y, clients=[f"c{number}" for number in SIX], sample_weight=np.where(SIX < 2, 0.0, 1.0))
    assert seen == {(4, (3,))}
    with pytest.warns(UserWarning, match=r"must be clients that take part in the steps; found 5 \(5\) without a row"):
        model.fit(X, y, clients=SIX, sample_weight=np.where(SIX == 5, 0.0, 1.0))


@pytest.mark.parametrize("corrupt", [0, 1, 2, 3, 4, 5])
def test_attacks_follow_clients_past_those_held_out(monkeypatch: Any, corrupt: int) -> None:
    seen = attacked_clients(monkeypatch)
    model = BlockGMDRegressor(
        aggregator="mean", gradient_corruption=BitFlip(0.0, scale=1.0, corrupt=[corrupt]), max_epochs=1,
        early_stopping=True, validation_fraction=0.3, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, Y[:, 0], clients=SIX)
    told = any(f"found {corrupt} ({corrupt}) without a row" in str(warning.message) for warning in caught)
    ((n, rows),) = seen
    assert (n, len(rows)) == (4, 0 if told else 1)


def test_attacks_follow_clients_over_calls(monkeypatch: Any) -> None:
    seen = attacked_clients(monkeypatch)
    settings = {"aggregator": "coordinate_median", "random_state": 0}
    model = BlockGMDClassifier(gradient_corruption=BitFlip(corrupt=[3, 5]), **settings)
    y, found = Y[:, 0] > 0.0, []
    for among in ([1, 2, 3, 4], [5, 4, 3, 1, 0], [0, 1, 4]):
        chosen = np.isin(SIX, among)
        model = pickle.loads(pickle.dumps(model))
        if not found:
            with pytest.warns(UserWarning, match="found 5 without a row so far"):
                model.partial_fit(X[chosen], y[chosen], classes=[False, True], clients=SIX[chosen])
        else:
            model.partial_fit(X[chosen], y[chosen], clients=SIX[chosen])
        found.append(set(seen))
        seen.clear()
    # Numbers 0 to 3 are clients 1 to 4, number 4 is client 0, and number 5 client 5.
    assert found == [{(4, (3,))}, {(5, (3, 4))}, {(3, (2,))}]


def test_numbers_of_clients_are_saved_with_a_training(monkeypatch: Any, tmp_path: Any) -> None:
    def net() -> Any:
        return RobustNeuralNetRegressor(
            torch.nn.Linear(3, 1), aggregator="coordinate_median", gradient_corruption=BitFlip(corrupt=[0]),
            batch_size=4, max_epochs=1, train_split=None, verbose=0,
        ).initialize()  # fmt: skip

    def data(*clients: str) -> Dataset:
        dataset = Dataset(X, Y)
        dataset.clients = np.repeat(clients, 8)
        return dataset

    first = net().partial_fit(data("c", "b", "d"), None)
    first.save_params(f_params=tmp_path / "params", f_optimizer=tmp_path / "optimizer", f_history=tmp_path / "history")
    seen = attacked_clients(monkeypatch)
    second = net()
    second.load_params(f_params=tmp_path / "params", f_optimizer=tmp_path / "optimizer", f_history=tmp_path / "history")
    second.partial_fit(data("a", "b", "d"), None)
    assert seen == {(3, (1,))}


def test_places_without_a_group_are_warned_of() -> None:
    settings = {"aggregator": "coordinate_median", "group_size": 4, "batch_size": 24, "max_epochs": 2}
    model = BlockGMDRegressor(gradient_corruption=BitFlip(corrupt=[1, 7, 6]), random_state=0, **settings)
    with pytest.warns(UserWarning, match="must be places of groups in the batches; found 6, 7 without a row") as caught:
        model.fit(X, Y[:, 0])
    assert len(caught) == 1


class Parameters(Callback):
    """Parameters before each step, and after the last."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
        self.seen.append(torch.cat([each.detach().clone().flatten() for each in net.module_.parameters()]))

    on_train_end = on_batch_begin


LABELS = (X[:, 0] > 0.0).astype(np.int64)
#: Ways of a training to its rows.
WAYS: dict[str, dict[str, Any]] = {
    "one pass": {"group_size": 1, "gradients": "one_pass"},
    "micro-batches": {"group_size": 1, "gradients": "micro_batches"},
    "groups": {"group_size": 4},
    "groups of unequal sizes": {"group_size": 5},
    "micro-batches of groups": {"group_size": 4, "gradients": "micro_batches"},
    "steps by each group": {"group_size": 4, "local_steps": 2},
    "no groups": {"group_size": None},
    "tilted": {"group_size": 1, "tilt": 0.7},
    "weights of classes": {"group_size": 1, "criterion__weight": torch.tensor([1.0, 3.0])},
    "ignored targets": {"group_size": 1, "criterion__ignore_index": 0},
    "sums": {"group_size": 1, "criterion__reduction": "sum"},
    "the mean": {"group_size": 1, "aggregator": "mean"},
    "a rule of pairs": {"group_size": 1, "aggregator": "krum"},
    "a rule with memory": {"group_size": 1, "aggregator": "bgmd_paper"},
}


def trained(weights: np.ndarray, **settings: Any) -> RobustNeuralNet:
    torch.manual_seed(0)
    dataset = Dataset(X, LABELS)
    dataset.sample_weight = weights
    known = {"max_epochs": 2, "batch_size": 8, "lr": 0.05, "verbose": 0, "train_split": None, "random_state": 0}
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    net = RobustNeuralNet(module, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, **{**known, **settings})
    return net.fit(dataset, None)


@pytest.fixture(params=["general", "fused"])
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "general":
        monkeypatch.setattr(FusedStep, "of", classmethod(lambda cls, net, batch: None))


@pytest.mark.usefixtures("step")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", [0, 8], ids=["the first batch", "a later one"])
def test_a_batch_without_weight_changes_nothing(way: str, first: int) -> None:
    weights, parameters = np.ones(len(X)), Parameters()
    weights[first : first + 8] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = trained(weights, callbacks=[parameters], iterator_train__shuffle=False, **WAYS[way])
    moved = [
        not torch.equal(before, after) for before, after in zip(parameters.seen, parameters.seen[1:], strict=False)
    ]
    assert moved == 2 * [number != first // 8 for number in range(3)]
    assert np.isfinite(net.history[:, "train_loss"]).all()
    assert np.isfinite(net.history[:, "batches", :, "train_loss"]).all()


@pytest.mark.usefixtures("step")
@pytest.mark.parametrize("way", [name for name, settings in WAYS.items() if settings["group_size"] == 1])
def test_what_is_noted_of_a_sample_without_weight_is_its_own_likelihood(way: str) -> None:
    weights = np.where(np.arange(len(X)) % 5 == 0, 0.0, np.linspace(0.5, 1.0, len(X)))
    # The parameters stay where they are: what is noted doesn't depend on the weights.
    settings = {**WAYS[way], "lr": 0.0, "aggregator": WAYS[way].get("aggregator", "geometric_median")}
    records = [trained(each, **settings).sample_record(len(X)) for each in (weights, np.ones(len(X)))]
    np.testing.assert_allclose(records[0].likelihood, records[1].likelihood, rtol=1e-5)
    known = LABELS > 0 if way == "ignored targets" else np.ones(len(X), dtype=bool)
    likelihood = records[0].likelihood[-1]
    assert ((likelihood > 0.1) & (likelihood < 0.9))[known].all()
    # Of targets that are to be ignored nothing is known.
    assert np.isnan(likelihood[~known]).all()


@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
@pytest.mark.parametrize("attack", [None, LabelFlip(corrupt=[0])])
def test_losses_of_groups_without_weight_are_their_means(gradients: str, attack: Any) -> None:
    weights = np.ones(8)
    weights[4:] = 0.0
    net = RobustNeuralNetRegressor(nn.Linear(3, 1), group_size=2, gradients=gradients, gradient_corruption=attack)
    net.initialize()
    batch = Batch(torch.from_numpy(X[:8]), torch.from_numpy(Y[:8]), np.arange(8), torch.from_numpy(weights))
    grouped = GroupedBatch(batch, 2, net.criterion_)
    made = net.make_rows(grouped, net._gradient_matrix(batch), {})
    each = (net.module_(batch[0]) - batch[1]).square().flatten()
    torch.testing.assert_close(made.losses.detach(), each.view(4, 2).mean(dim=1).detach())
    assert (made.rows.norms() > 0.0).all()
    np.testing.assert_array_equal(made.rows.weights, [1.0, 1.0, 0.0, 0.0])


class _TakesBoth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2).double()

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([a, b], dim=1))


@pytest.mark.parametrize("names", [(0, 1), ("a", 1)], ids=str)
def test_inputs_are_named_by_text(names: tuple[Any, Any]) -> None:
    X = dict(zip(names, np.ones((2, 12, 2)), strict=True))
    other = next(name for name in names if not isinstance(name, str))
    with pytest.raises(
        TypeError, match=f"X must be a dict by the names of the arguments of forward; found the key {other}"
    ):
        BlockGMDClassifier(_TakesBoth, max_epochs=1).fit(X, np.arange(12) % 2)
