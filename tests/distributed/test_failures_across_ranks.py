"""Errors of one rank, anywhere in a training, which reach all ranks and leave a fitted estimator as it was."""

from __future__ import annotations

import copy
import re
import signal
import time
import warnings
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn

from processes import on_ranks
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd._utils import limits
from skbgmd.aggregators import GeometricMedian, NonFiniteRowsError
from skbgmd.distributed import AcrossRanks, Exchange, RankFailedError, RankLostError

pytestmark = pytest.mark.slow  # many processes start

FAST = {"hidden_layer_sizes": (4,), "batch_size": 16, "strength": None, "max_epochs": 3}


class Failing(Callback):
    """Fails at an event, of the epoch, or after it."""

    def __init__(self, event: str = "", error: Any = None, epoch: int = 1) -> None:
        self.event, self.error, self.epoch = event, error, epoch

    def _at(self, event: str, net: Any) -> None:
        if event == self.event and len(net.history) >= self.epoch:
            if self.error is signal.SIGINT:
                signal.raise_signal(signal.SIGINT)
            else:
                raise self.error

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self._at("train_begin", net)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self._at("epoch_begin", net)

    def on_batch_begin(self, net: Any, **kwargs: Any) -> None:
        self._at("batch_begin", net)

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        self._at("batch_end", net)

    def on_grad_computed(self, net: Any, *args: Any, **kwargs: Any) -> None:
        self._at("grad_computed", net)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self._at("epoch_end", net)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self._at("train_end", net)


class FailingLoss(nn.CrossEntropyLoss):
    """A loss that fails in training, or in evaluation only."""

    in_evaluation = False

    def forward(self, input: Any, target: Any) -> Any:
        if self.in_evaluation != torch.is_grad_enabled():
            raise ArithmeticError("of the loss")
        return super().forward(input, target)


class FailingInEvaluation(FailingLoss):
    in_evaluation = True


class FailingAtTheEnd(BlockGMDClassifier):
    """Fails when all is trained."""

    def _keep(self, net: Any, samples: Any) -> Any:
        raise LookupError("at the end")


class Wide(nn.Linear):
    """A linear layer of which one rank has another width inside of nothing."""

    def __init__(self, extra: int) -> None:
        super().__init__(2, 2)
        self.unused = nn.Parameter(torch.zeros(extra))


class Ordered(nn.Linear):
    """A linear layer with parts that are registered in an order of their own."""

    def __init__(self, names: str) -> None:
        super().__init__(2, 2)
        for name in names:
            self.add_module(name, nn.Linear(2, 2))

    def forward(self, X: Any) -> Any:
        return self.b(torch.relu(self.a(super().forward(X))))


class Buffered(nn.Linear):
    """A linear layer with buffers, which aren't in its state, in an order of their own."""

    def __init__(self, names: str) -> None:
        super().__init__(2, 2)
        for name in names:
            self.register_buffer(name, torch.full((3,), float(ord(name))), persistent=False)


def data(rank: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(rank)
    X = rng.normal(size=(40 + 30 * rank, 2))
    return X, (X[:, 0] > 0.0).astype(int)


def callback(event: str, error: Any = None, epoch: int = 0) -> dict[str, Any]:
    error = ZeroDivisionError(f"in {event}") if error is None else error
    return {"callbacks": [("failing", Failing(event, error, epoch))]}


#: What is otherwise on the last rank, and a part of the message that the others get.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "data": ({"X": np.full((10, 2), np.nan), "y": np.arange(10) % 2}, "rank 1: ValueError: Input X contains NaN"),
    "labels": ({"y": np.arange(70) / 70}, "rank 1: ValueError: Unknown label type"),
    "parameter": ({"lr": -1.0}, "rank 1: ValueError: lr must be"),
    "weights": ({"sample_weight": -np.ones(70)}, "sample_weight must not be negative"),
    "train_begin": (callback("train_begin"), "rank 1: ZeroDivisionError: in train_begin"),
    "epoch_begin": (callback("epoch_begin", epoch=2), "ZeroDivisionError: in epoch_begin"),
    "batch_begin": (callback("batch_begin", epoch=2), "ZeroDivisionError: in batch_begin"),
    "batch_end": (callback("batch_end", epoch=3), "ZeroDivisionError: in batch_end"),
    "grad_computed": (callback("grad_computed", epoch=1), "ZeroDivisionError: in grad_computed"),
    "epoch_end": (callback("epoch_end", epoch=3), "ZeroDivisionError: in epoch_end"),
    "train_end": (callback("train_end"), "ZeroDivisionError: in train_end"),
    "loss": ({"criterion": FailingLoss}, "rank 1: ArithmeticError: of the loss"),
    "validation": ({"criterion": FailingInEvaluation, "train_split": ValidSplit(3)}, "ArithmeticError: of the loss"),
    "after others": ({"kind": FailingAtTheEnd}, "rank 1: LookupError: at the end"),
    "interrupt": (callback("batch_end", signal.SIGINT, 2), "rank 1: KeyboardInterrupt"),
    "interrupt at the end": (callback("train_end", KeyboardInterrupt()), "rank 1: KeyboardInterrupt"),
    "ends early": (callback("epoch_end", SystemExit(3), 2), "rank 1: SystemExit: 3"),
}
#: What all ranks refuse, naming the ranks.
DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"max_epochs": 5}, "max_epochs must be the same on all ranks; found 3 on rank 0; 5 on rank 1"),
    "features": ({"X": np.zeros((70, 3))}, r"What is trained \(features\) must be .*\[2\] on rank 0; \[3\] on rank 1"),
    "kind of labels": (
        {"y": np.array(["a", "b"] * 35)},
        "The kind of the labels .*'integers' on rank 0; 'text' on rank 1",
    ),
    "learning rate": (
        {"lr": 0.5},
        r"settings of optimizers \(optimizer, group 0, lr\) .* 0\.005 on rank 0; 0\.5 on rank 1",
    ),
    "names of features": (
        {"X": pd.DataFrame(data(1)[0], columns=["b", "a"])},
        r"What is trained \(feature_names_in_\[0\]\) must .* found 'a' on rank 0; 'b' on rank 1",
    ),
    "names on one rank": (
        {"X": pd.DataFrame(data(1)[0], columns=["a", "b"])},
        r"What is trained \(feature_names_in_\[0\]\) must .* found None on rank 0; 'a' on rank 1",
    ),
    "early stopping": ({"early_stopping": True}, r"What is trained \(early_stopping\) .* 'True' on rank 1"),
    "strength": ({"strength": "auto"}, r"What is trained \(strength\) .* found 'None' on rank 0; 'auto' on rank 1"),
    "groups": ({"group_size": 8}, r"What is trained \(group_size\) .* found '1' on rank 0; 'more than 1' on rank 1"),
    "clients": ({"clients": np.arange(70) % 5}, r"What is trained \(clients\) .* 'not given' on rank 0; 'given' on"),
    "clients as groups": ({"groups": np.arange(70) % 5}, r"What is trained \(clients\) .* 'not given' on rank 0"),
    "local steps": ({"local_steps": 2}, r"local_steps must be the same .* found '1' on rank 0; '2' on rank 1"),
    "order": ({"module": Ordered, "module__names": "ba"}, r"order of parameters.*module\.a.* on rank 0; .*b"),
    "order of buffers": ({"module": Buffered, "module__names": "ba"}, r"order of parameters.*\.a' on rank 0; .*\.b"),
    "same data": (
        {"aggregator": AcrossRanks(data="split"), "X": data(0)[0][::-1].copy(), "y": data(0)[1]},
        r'With data="split", the checksums of the data \(X\) must be the same',
    ),
    "same weights": (
        {"aggregator": AcrossRanks(data="split"), "X": data(0)[0], "y": data(0)[1], "sample_weight": np.full(40, 2.0)},
        r'With data="split", the checksums of the data \(sample_weight\) must be .* found None on rank 0; ',
    ),
    "shapes": ({"module": Wide, "module__extra": 3}, "shapes of parameters.*unused.*on rank 0; .* on rank 1"),
}

#: What is otherwise on the other ranks, where they don't have the defaults.
OTHERS: dict[str, dict[str, Any]] = {
    "shapes": {"module": Wide, "module__extra": 2},
    "names of features": {"X": pd.DataFrame(data(0)[0], columns=["a", "b"])},
    "order": {"module": Ordered, "module__names": "ab"},
    "order of buffers": {"module": Buffered, "module__names": "ab"},
    "same data": {"aggregator": AcrossRanks(data="split"), "X": data(0)[0], "y": data(0)[1]},
    "same weights": {"aggregator": AcrossRanks(data="split"), "X": data(0)[0], "y": data(0)[1]},
}


def fit(rank: int, settings: dict[str, Any], model: Any = None) -> Any:
    X, y = data(rank)
    settings = dict(settings)
    X, y = settings.pop("X", X), settings.pop("y", y)
    of_samples = {name: settings.pop(name, None) for name in ("sample_weight", "clients", "groups")}
    kind = settings.pop("kind", BlockGMDClassifier)
    params = {**FAST, "aggregator": AcrossRanks(), "random_state": rank, **settings}
    if model is None:
        return kind(**params).fit(X, y, **of_samples)
    model.set_params(**settings)
    model.__class__ = kind
    return model.fit(X, y, **of_samples)


def failing(rank: int, size: int, cases: Any, common: dict[str, Any]) -> Any:
    found = {}
    fitted = fit(rank, {"train_split": None})
    for name in cases:
        settings, _ = {**CASES, **DIFFERENT}[name]
        here = dict(settings) if rank == size - 1 else {}
        if rank < size - 1:
            here = OTHERS.get(name, {})
        if name == "validation":
            here["train_split"] = ValidSplit(3)
        model = copy.deepcopy(fitted)
        before = {key: value for key, value in vars(model).items() if key.endswith("_")}
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit(rank, {**common, **here}, model)
            outcome = "no error"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        after = {key: value for key, value in vars(model).items() if key.endswith("_")}
        is_same = before.keys() == after.keys() and all(after[key] is value for key, value in before.items())
        found[name] = (outcome, is_same, time.perf_counter() - start)
    # They are still in step.
    return found, fit(rank, {}).n_iter_


def check(found: Any, expected: dict[str, tuple[Any, str]], *, own_error: bool) -> None:
    for name, (_, message) in expected.items():
        for rank, (outcomes, n_iter) in enumerate(found):
            outcome, is_same, seconds = outcomes[name]
            is_failing = own_error and rank == len(found) - 1
            wanted = message.removeprefix("rank 1: ") if is_failing else message
            if own_error and "Interrupt" in message and is_failing:
                wanted = "KeyboardInterrupt"
            assert re.search(wanted, outcome), (name, rank, outcome)
            assert is_same, (name, rank)
            assert seconds < 5.0
            assert n_iter == 3


@pytest.mark.parametrize("part", range(3))
def test_errors_of_a_rank_reach_all(part):
    cases = dict(list(CASES.items())[part::3])
    check(on_ranks(failing, 2, list(cases), {}), cases, own_error=True)


def test_what_must_be_the_same_is_refused_on_all():
    check(on_ranks(failing, 2, list(DIFFERENT), {}), DIFFERENT, own_error=False)


def test_warm_starts_fail_together():
    cases = {name: CASES[name] for name in ("data", "weights", "after others")}
    check(on_ranks(failing, 2, list(cases), {"warm_start": True}), cases, own_error=True)


class Overflowing(nn.Module):
    """Gives numbers that a float32 doesn't hold, once it was asked often enough."""

    def __init__(self, calls: float) -> None:
        super().__init__()
        self.linear, self.left = nn.Linear(2, 2), calls

    def forward(self, X: Any) -> Any:
        if self.training:
            self.left -= 1
        return self.linear(X) * (torch.inf if self.left < 0 else 1.0)


def others(rank: int, size: int) -> Any:
    """Nets, other methods, more than one rank that fails, and a loss that isn't a number on most of them."""
    X, y = data(rank)
    found: list[str] = []

    def note(function: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function()
            found.append("no error")
        except (RankFailedError, ValueError, TypeError, KeyboardInterrupt) as error:
            found.append(f"{type(error).__name__}, {isinstance(error, NonFiniteRowsError)}: {error}")

    bad = X * np.nan if rank else X
    rule = AcrossRanks()
    note(lambda: BlockGMDClassifier(**FAST, aggregator=rule).partial_fit(bad, y, classes=[0, 1]))
    note(lambda: BlockGMDRegressor(**FAST, aggregator=rule).partial_fit(bad, y))
    note(lambda: BlockGMDRegressor(**FAST, aggregator=AcrossRanks(data="split")).fit(X, y))
    module = nn.Sequential(nn.Linear(2, 2), nn.Softmax(dim=-1))
    net = RobustNeuralNetClassifier(module, aggregator=rule, verbose=0, train_split=None)
    note(lambda: net.fit(np.ma.masked_array(X, mask=True) if rank else X.astype(np.float32), y))
    calls = Overflowing, {"module__calls": 3.0 if rank > 0 else 1e9}
    note(lambda: BlockGMDClassifier(calls[0], **calls[1], **FAST, aggregator=rule, gradients="micro_batches").fit(X, y))
    note(lambda: fit(rank, callback("epoch_end", ValueError(f"of rank {rank}"), 2) if rank > 0 else {}))
    # One rank thinks that it is over.
    note(lambda: fit(rank, callback("epoch_end", KeyboardInterrupt(), 2)))
    note(lambda: fit(rank, {}))
    # Errors in a handler of an earlier one are new ones, and one that is raised again is.
    again = ValueError("again")
    for _ in range(2):
        try:
            fit(rank, callback("epoch_end", again, 1) if rank else {})
        except (RankFailedError, ValueError):
            note(lambda: fit(rank, callback("batch_end", again, 1) if rank else {}))
    return found


def test_other_ways_to_fail():
    first, second, third = on_ranks(others, 3)
    assert all("rank 1: ValueError: Input X contains NaN" in found for found in first[:2])
    assert "Input X contains NaN" in second[0]
    for found in (first, second, third):
        assert "the number of samples must be the same on all ranks; found 40 on rank 0; 70 on rank 1" in found[2]
        assert "KeyboardInterrupt" in found[6]
        assert found[7] == "no error"
        assert all("again" in outcome for outcome in found[8:])
        assert len(found) == 10
    assert "rank 1: ValueError" in first[3] or "rank 1: TypeError" in first[3]
    # One alone is outvoted.
    for found in (first, second, third):
        assert found[4].startswith("NonFiniteRowsError, True")
        assert "found 2 of 3 rows that hold NaN or inf" in found[4]
    assert "rank 1: ValueError: of rank 1; rank 2: ValueError: of rank 2" in first[5]
    assert "of rank 2" in third[5]


def by_different_rules(rank: int, size: int, later: str) -> Any:
    """One rank trains by a rule without ranks, by a slip, and goes on, to a collective of the package or of torch's."""
    limits.LATE_SECONDS = 1.5
    group = dist.new_group(timeout=timedelta(seconds=3.0)) if later == "barrier" else None
    begin = time.monotonic()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            if rank == 1:
                fit(rank, {"aggregator": GeometricMedian()})
                if later == "exchange":
                    Exchange().to_shards(torch.ones(1, 8)).wait()
                elif later == "barrier":
                    time.sleep(8.0)
                return None
            fit(rank, {"aggregator": AcrossRanks(group=group)})
    except (RankFailedError, RankLostError) as error:
        return str(error), time.monotonic() - begin, [str(each.message) for each in warned]
    return "no error"


@pytest.mark.parametrize("later", ["exchange", "barrier", "end"])
def test_ranks_that_train_by_a_rule_without_ranks_are_named(later):
    found = on_ranks(by_different_rules, 3, later, timeout=40.0, lost={3})
    slip = r"Rank 1 began, \d+\.\d s ago, a training without other ranks, by aggregator=GeometricMedian\(\); is it"
    if later == "exchange":
        assert "rank 1 at 'what ranks exchange for the first time'" in found[1][0]
    for rank in (0, 2):
        message, seconds, warned = found[rank]
        assert seconds < (10.0 if later == "barrier" else 5.0)
        if later == "exchange":
            assert "found rank 0 at 'The parameters of AcrossRanks', rank 1 at 'what ranks exchange" in message
        else:
            assert "ranks [1] of 3 don't answer a roll call" in message
            assert re.search(slip, message)
        if later == "barrier":
            assert any(re.search(slip, each) and "has waited for" in each for each in warned)
