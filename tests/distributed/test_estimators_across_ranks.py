"""Estimators and nets that train in several processes: they end alike, whatever differs between the ranks."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Checkpoint, EarlyStopping, GradientNormClipping, LoadInitState, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from processes import on_ranks
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier, RobustNeuralNetRegressor
from skbgmd.aggregators import BlockGeometricMedian, NonFiniteRowsError
from skbgmd.corruption import SearchedInnerProduct, Squatter
from skbgmd.distributed import AcrossRanks

FAST = {"hidden_layer_sizes": (8,), "batch_size": 32, "strength": None}


def classes_of(n: int, seed: int) -> tuple[Any, Any]:
    """Three classes, one in each corner."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 2)) + 4.0 * np.array([[0, 0], [1, 0], [0, 1]])[y], y


def numbers_of(n: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    return X, X @ [1.0, -2.0, 0.5] * 10.0 + 100.0


def bits(model: Any) -> bytes:
    net = getattr(model, "net_", model)
    state = net.module_.state_dict()
    return b"".join(value.detach().cpu().numpy().tobytes() for value in state.values())


def alike(found: list[Any]) -> Any:
    """What all ranks found, as bytes compare: the same on all."""
    for each in found[1:]:
        assert pickle.dumps(each) == pickle.dumps(found[0])
    return found[0]


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def with_own_data(rank: int, size: int) -> Any:
    """Ranks with different numbers of samples, seeds and labels, one of them with wrong labels."""
    X, y = classes_of(40 + 60 * rank, rank)
    names = np.array(["b", "a", "long name"])[y]
    if rank == 0:
        X, names = X[names != "a"], names[names != "a"]
    if rank == 3:
        names = np.array(["a", "long name", "b"])[y]
    model = BlockGMDClassifier(
        **FAST, aggregator=AcrossRanks("auto", "geometric_median"), max_epochs=12, lr=0.02, random_state=rank or None
    )
    before = torch.get_rng_state()
    model.fit(X, names)
    assert torch.equal(before, torch.get_rng_state())
    X_test, y_test = classes_of(300, 99)
    score = model.score(X_test, np.array(["b", "a", "long name"])[y_test])
    steps = model.history_[-1]["train_batch_count"]
    weights = model.history_[-1]["rank_weights"]
    if rank == 1:
        # Predictions wait for nobody.
        model.predict(X_test)
        model.predict_proba(X_test)
    trust = np.nanmedian(model.sample_trust_)
    return (bits(model), model.classes_.tolist(), score, steps, weights, model.loss_curve_), trust


def test_ranks_end_with_the_same_model():
    found = on_ranks(with_own_data, 4)
    _, classes, score, steps, weights, _ = alike([each for each, _ in found])
    assert classes == ["a", "b", "long name"]
    assert score > 0.9
    assert steps == round(220 / 32)
    assert weights[3] == min(weights)
    assert sum(weights) == pytest.approx(1.0)
    assert found[3][1] < min(trust for _, trust in found[:3])


def with_split_data(rank: int, size: int) -> Any:
    X, y = classes_of(101, 0)
    weight = np.where(np.arange(101) < 90, 1.0, 0.0)
    clients = np.arange(101) % 5
    found = []
    for kind, target in ((BlockGMDClassifier, y), (BlockGMDRegressor, X[:, 0])):
        model = kind(**FAST, aggregator=AcrossRanks(data="split"), max_epochs=2, random_state=rank)
        model.fit(X, target, sample_weight=weight, sample_id=np.arange(101))
        known = ~np.isnan(model.sample_trust_)
        model.fit(X, target, groups=clients)
        found.append((bits(model), known))
    net = RobustNeuralNetClassifier(
        nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=-1)),
        aggregator=AcrossRanks(data="split"),
        group_size=1,
        max_epochs=1,
        verbose=0,
        train_split=ValidSplit(4),
    ).fit(X.astype(np.float32), y)
    return found, bits(net), (~np.isnan(net.sample_trust(101))).sum()


class Exponential(nn.Module):
    """Multiplies features by the exponential of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.layer(X[:, :2] * X[:, 2:].exp())


def with_numbers_that_overflow(rank: int, size: int, hostile: set[int]) -> Any:
    X, y = classes_of(90, rank)
    X = np.column_stack([X, np.full(len(X), 1000.0 if rank in hostile else 0.0)])
    model = BlockGMDClassifier(Exponential, **FAST, aggregator=AcrossRanks(), max_epochs=15, lr=0.1, random_state=0)
    try:
        quietly(model.fit, X, y)
    except NonFiniteRowsError as error:
        return str(error)
    X, y = classes_of(300, 99)
    X = np.column_stack([X, np.zeros(len(X))])
    return bits(model), model.score(X, y), model.history_[-1]["rank_weights"]


def test_a_rank_whose_numbers_overflow_is_left_out():
    _, score, weights = alike(on_ranks(with_numbers_that_overflow, 4, {1}))
    assert score > 0.95
    assert weights[1] == 0.0
    well, *lost, _ = on_ranks(with_numbers_that_overflow, 4, {1, 2})
    assert "found 2 of 4 rows that hold NaN or inf" in well
    for message in lost:
        assert "predictions are not finite, though the data are" in message


def test_split_data_are_split():
    ranks = on_ranks(with_split_data, 2)
    for of_kind in zip(*(found for found, *_ in ranks), strict=True):
        alike([model for model, _ in of_kind])
        seen = np.stack([known for _, known in of_kind])
        assert not (seen[0] & seen[1]).any()
        np.testing.assert_array_equal(seen.any(axis=0), np.arange(101) < 90)
        assert abs(int(seen[0].sum()) - int(seen[1].sum())) <= 11
    alike([net for _, net, _ in ranks])
    # Of 51 and 50 samples a quarter each is held out.
    assert sum(int(n) for *_, n in ranks) == pytest.approx(0.75 * 101, abs=2)


def regressors(rank: int, size: int) -> Any:
    X, y = numbers_of(60 + 20 * rank, rank)
    if rank == 2:
        y = 1e6 * y
    model = BlockGMDRegressor(
        **FAST, aggregator=AcrossRanks("huber_mean", "coordinate_median"), max_epochs=30, lr=0.03, random_state=rank
    ).fit(X, y)
    scale = (model._center.tolist(), model._scale.tolist())
    score = model.score(*numbers_of(200, 9))
    # Of few samples the scale is provisional: calls train anew, on all ranks at once.
    parts = BlockGMDRegressor(**FAST, aggregator=AcrossRanks(), random_state=0)
    for call in range(5):
        some = slice(7 * call, 7 * call + 3 + 2 * rank)
        parts.partial_fit(X[some], y[some] if rank else np.full(len(y[some]), 5.0))
    return bits(model), scale, score, bits(parts), parts._scale.tolist()


def test_targets_are_scaled_alike():
    _, (center, scale), score, *_ = alike(on_ranks(regressors, 3))
    assert abs(center[0] - 100.0) < 10.0
    assert 10.0 < scale[0] < 50.0
    assert score > 0.9


def decisions(rank: int, size: int) -> Any:
    """Trainings that end, and learning rates that change, by scores of a rank's own data; strengths likewise."""
    X, y = classes_of(120 + 30 * rank, rank)
    if rank == 1:
        y = np.random.default_rng(0).integers(3, size=len(y))
    rule = AcrossRanks()
    common = {**FAST, "aggregator": rule, "random_state": rank, "lr": 0.05}
    found: list[Any] = []
    for how in (True, "loss"):
        model = BlockGMDClassifier(**common, early_stopping=how, n_iter_no_change=2, tol=0.02, max_epochs=25)
        quietly(model.fit, X, y)
        found.append((bits(model), model.n_iter_, model.validation_scores_))
    X_numbers, y_numbers = numbers_of(80 + rank, rank)
    model = BlockGMDRegressor(**common, early_stopping=True, n_iter_no_change=2, tol=0.05, max_epochs=15)
    quietly(model.fit, X_numbers, y_numbers)
    found.append((bits(model), model.n_iter_, model.validation_scores_))
    scheduler = LRScheduler("ReduceLROnPlateau", monitor="valid_loss", patience=0, threshold=0.5)
    callbacks = [
        ("stop", EarlyStopping("valid_acc", patience=3, lower_is_better=False, load_best=True)),
        ("lr", scheduler),
    ]
    net = RobustNeuralNetClassifier(
        nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=-1)),
        aggregator=rule,
        callbacks=callbacks,
        lr=0.3,
        max_epochs=12,
        verbose=0,
    ).fit(X.astype(np.float32), y)
    kept = [
        {key: row[key] for key in ("valid_loss", "valid_acc", "valid_loss_best", "valid_acc_best", "train_loss")}
        for row in net.history
    ]
    found.append((bits(net), kept, net.optimizer_.param_groups[0]["lr"]))
    model = BlockGMDClassifier(**{**common, "strength": "auto"}, max_epochs=20).fit(X, y)
    found.append((bits(model), model.strength_, {k: tuple(v) for k, v in model.strength_scores_.items()}))
    return found


def test_what_decides_by_a_ranks_own_data_decides_alike():
    stopped, by_loss, numbers, (_, rows, lr), (_, strength, scores) = alike(on_ranks(decisions, 2))
    assert stopped[1] < 25
    assert by_loss[1] <= 25
    assert numbers[1] <= 15
    losses = [row["valid_loss"] for row in rows]
    assert [row["valid_loss_best"] for row in rows] == [
        loss < min([np.inf, *losses[:i]]) for i, loss in enumerate(losses)
    ]
    assert lr < 0.3
    assert strength in scores


def continued(rank: int, size: int, folder: str) -> Any:
    X, y = classes_of(70 + 10 * rank, rank)
    found = []
    warm = BlockGMDClassifier(**FAST, aggregator=AcrossRanks(), warm_start=True, max_epochs=1, random_state=rank)
    warm.fit(X, y).fit(X, y)
    found.append((bits(warm), warm.n_iter_))
    part = BlockGMDClassifier(**FAST, aggregator=AcrossRanks(), random_state=rank)
    for some in np.array_split(np.arange(60), 3):
        part.partial_fit(X[some], y[some], classes=[0, 1, 2])
    found.append((bits(part), part.n_iter_))
    # A checkpoint of each rank, by which a training goes on as if nothing had happened.
    ends = []
    for epochs in ((4,), (2, 4)):
        path = str(Path(folder) / f"{rank}-{len(epochs)}")
        for most in epochs:
            checkpoint = Checkpoint(dirname=path, monitor=None, f_pickle=None)
            callbacks = [("load", LoadInitState(checkpoint)), ("save", checkpoint)] if len(epochs) > 1 else None
            model = BlockGMDClassifier(
                **FAST, aggregator=AcrossRanks(), max_epochs=most, random_state=rank, callbacks=callbacks
            ).fit(X, y)
        ends.append(bits(model))
    found.append(ends[0] == ends[1])
    return found


def test_trainings_go_on():
    with tempfile.TemporaryDirectory() as folder:
        warm, part, is_same = alike(on_ranks(continued, 2, folder))
    assert warm[1] == 2
    assert part[1] == 3
    assert is_same


class Odd(nn.Module):
    """Batch normalization, a lazy layer, and one that some batches don't use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LazyLinear(6)
        self.norm = nn.BatchNorm1d(6)
        self.other = nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, X: Any) -> Any:
        hidden = self.norm(self.first(X)).relu()
        return (self.last(self.other(hidden)) if bool(X[0, 0] > 2.0) else self.last(hidden)).softmax(dim=-1)


def nets(rank: int, size: int) -> Any:
    torch.manual_seed(rank)
    X, y = classes_of(50 + 40 * rank, rank)
    X = X.astype(np.float32)
    found = []
    for settings in (
        {"module": Odd, "group_size": 8, "optimizer": torch.optim.Adam, "lr": 0.01},
        {"module": Odd, "group_size": None, "optimizer": torch.optim.AdamW, "lr": 0.01},
        {
            "module": nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=-1)),
            "optimizer": torch.optim.LBFGS,
            "optimizer__max_iter": 3,
            "lr": 0.05,
        },
        {"module": nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=-1)), "group_size": 4, "local_steps": 2},
        {"module": nn.Sequential(nn.Linear(2, 3), nn.Softmax(dim=-1)), "criterion__reduction": "sum", "lr": 0.001},
        {"module": nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Softmax(dim=-1)), "gradients": "micro_batches"},
    ):
        net = RobustNeuralNetClassifier(
            **settings, aggregator=AcrossRanks(), batch_size=16, max_epochs=2, verbose=0, train_split=None
        )
        net.fit(X, y).partial_fit(X, y)
        found.append((bits(net), len(net.history), net.history[-1]["train_batch_count"]))
    regressor = RobustNeuralNetRegressor(
        nn.Linear(2, 1), aggregator=AcrossRanks(), verbose=0, max_epochs=2, train_split=ValidSplit(3)
    ).fit(X, X[:, :1])
    found.append(bits(regressor))
    return found


def test_nets_of_all_kinds_train_in_step():
    for _, epochs, steps in alike(on_ranks(nets, 2))[:-1]:
        assert epochs == 4
        assert steps == 6


def with_settings(rank: int, size: int) -> Any:
    X, y = classes_of(60 + 7 * rank, rank)
    found = []
    for settings in (
        {"pre_aggregation": "nearest"},
        {"beta": 0.3},
        {"beta": 0.3, "memory": "weighted"},
        {"trust_power": 2.0, "tilt": 0.7},
        {"group_size": 4},
        {"group_size": None},
        {"class_weight": "balanced"},
        {"callbacks": [("clip", GradientNormClipping(1.0))]},
        {"aggregator": AcrossRanks(transport_dtype=torch.bfloat16)},
    ):
        common = {**FAST, "aggregator": AcrossRanks(), "max_epochs": 2, "random_state": rank}
        found.append(bits(BlockGMDClassifier(**{**common, **settings}).fit(X, y)))
    model = BlockGMDClassifier(**FAST, aggregator=AcrossRanks(), max_epochs=2)
    return [*found, bits(model.fit(X, y, groups=np.arange(len(y)) % 4))]


def test_settings_of_estimators_are_those_within_a_rank():
    # Without a warning: that parameters of the rule are ignored would be one.
    assert len(set(alike(on_ranks(with_settings, 2)))) == 10


def with_choices_of_one_rank(rank: int, size: int) -> Any:
    X, y = classes_of(300, rank)
    found = []
    for settings in (
        {"aggregator": AcrossRanks(["auto", "mean"][rank])},
        {"trust_power": [None, 2.0][rank]},
        {"leverage": ["auto", None][rank]},
        {"leverage": ["auto", 3.0][rank]},
    ):
        common = {"hidden_layer_sizes": (8,), "aggregator": AcrossRanks(), "max_epochs": 30, "random_state": rank}
        found.append(bits(quietly(BlockGMDClassifier(**{**common, **settings}).fit, X, y)))
    numbers = {"max_epochs": 3, "aggregator": AcrossRanks(["auto", "mean"][rank])}
    return [*found, bits(quietly(BlockGMDRegressor(**numbers).fit, *numbers_of(300, rank)))]


def test_ranks_that_choose_by_held_out_samples_train_with_those_that_do_not():
    alike(on_ranks(with_choices_of_one_rank, 2))


def searched(rank: int, size: int) -> Any:
    X, y = classes_of(60, 0)
    model = BlockGMDClassifier(**FAST, aggregator=AcrossRanks("huber_mean", data="split"), max_epochs=2, random_state=0)
    grid = {"aggregator__across__tol": [1e-6, 1e-3], "aggregator__within": ["auto", "mean"]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    return search.best_params_["aggregator__within"], bits(search.best_estimator_)


def test_searches_fit_in_step():
    alike(on_ranks(searched, 2))


def test_one_rank_is_the_estimator_itself():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16.0, y[:300]
    settings = {"hidden_layer_sizes": (8,), "max_epochs": 20, "random_state": 0}
    for strength in ("mild", "auto"):
        plain = BlockGMDClassifier(**settings, strength=strength).fit(X, y)
        rule = BlockGMDClassifier(**settings, strength=strength, aggregator=AcrossRanks()).fit(X, y)
        assert plain.strength_ == rule.strength_
        assert rule.history_[-1]["rank_weights"] == [1.0]
        # The steps of one process by blocks of units are other ones, which round otherwise.
        tolerance = 0.0 if strength == "mild" else 1e-12
        for one, other in zip(plain.module_.parameters(), rule.module_.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(plain.sample_trust_, rule.sample_trust_, rtol=tolerance)
    assert plain.strength_ == "strict"
    assert pickle.loads(pickle.dumps(rule)).score(X, y) == rule.score(X, y)


def under_attack_that_asks_the_rule(rank: int, size: int) -> Any:
    X, y = classes_of(72, rank)
    found = []
    # All ranks are attacked, or one of them: however often its rule is asked, ranks stay in step.
    for attack in (SearchedInnerProduct(0.3, weakest=1.0), Squatter(0.3) if rank == 1 else None):
        model = BlockGMDClassifier(
            aggregator=AcrossRanks(BlockGeometricMedian(0.3)),
            gradient_corruption=attack,
            group_size=4,
            max_epochs=1,
            random_state=rank,
            **FAST,
        )
        found.append(bits(quietly(model.fit, X, y)))
    return found


def test_attacks_ask_the_rule_within_their_rank() -> None:
    assert len(set(alike(on_ranks(under_attack_that_asks_the_rule, 3)))) == 2


def with_another_group(rank: int, size: int, kind: Any, settings: dict[str, Any]) -> Any:
    """Models that trained in a group go on in it, or in one that they are given, after a pickle or not."""
    X, y = classes_of(40, rank)
    group, other = dist.new_group([0, 1]), dist.new_group([0, 1])
    found = []
    for way in ("as it was", "pickled", "given another"):
        torch.manual_seed(0)
        model = kind(**settings, aggregator=AcrossRanks("huber_mean", "centered_clipping", group=group), max_epochs=2)
        model = quietly(model.fit, X.astype(np.float32), y)
        if way == "pickled":
            model = pickle.loads(pickle.dumps(model))
        if way != "as it was":
            model.set_params(aggregator__group=other)
        model = quietly(model.partial_fit, X.astype(np.float32), y)
        net = getattr(model, "net_", model)
        assert net.aggregator.group is net.aggregator_.rule.group is (group if way == "as it was" else other)
        found.append((bits(model), net.aggregator_.n_batches))
    return found


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (BlockGMDClassifier, {**FAST, "random_state": 0}),
        (
            RobustNeuralNetClassifier,
            {
                "module": nn.Linear,
                "module__in_features": 2,
                "module__out_features": 3,
                "criterion": nn.CrossEntropyLoss,
                "train_split": None,
                "random_state": 0,
            },
        ),
    ],
    ids=["estimator", "net"],
)
def test_a_group_that_is_given_later_goes_on_with_what_was_trained(kind, settings):
    for found in on_ranks(with_another_group, 2, kind, settings):
        assert found[1:] == found[:1] * 2
