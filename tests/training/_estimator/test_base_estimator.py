"""What the estimators share: what they do with the data, modules, losses and nets that they are given."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from contextlib import nullcontext
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris, make_classification
from sklearn.linear_model import LinearRegression
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochScoring
from skorch.dataset import Dataset

from conftest import ZOO
from fits import Fails, quick, states
from nets import Renamed
from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.corruption import BitFlip
from skbgmd.inspection import find_suspects, sample_losses
from skbgmd.training._estimator.base_estimator import restored_on_error
from skbgmd.training._estimator.wrapping import copied
from skbgmd.training._step.gradient_matrix import GradientMatrix


def _half_done(model):
    with restored_on_error(model):
        model.coef_, model.n_features_in_ = 2.0, 3
        raise KeyboardInterrupt


def test_restored_on_error():
    model = LinearRegression()
    model.coef_ = 1.0
    with pytest.raises(KeyboardInterrupt):
        _half_done(model)
    assert vars(model) == {**vars(LinearRegression()), "coef_": 1.0}
    with restored_on_error(model):
        model.coef_ = 2.0
    assert model.coef_ == 2.0


@pytest.mark.parametrize(
    ("settings", "fused"),
    [
        ({}, True),
        ({"optimizer": torch.optim.AdamW}, True),
        ({"optimizer__fused": False}, False),
        ({"optimizer__foreach": True}, None),
        ({"optimizer__amsgrad": True}, True),
        ({"optimizer": torch.optim.SGD}, None),
    ],
)
def test_adam_is_fused_unless_told_otherwise(settings, fused):
    """One pass over the parameters in place of a dozen; the same steps but for rounding."""
    X, y = make_classification(60, n_features=4, random_state=0)
    model = BlockGMDClassifier(max_epochs=3, random_state=0, **settings).fit(X, y)
    assert model.net_.optimizer_.param_groups[0].get("fused") is fused
    if fused:
        plain = BlockGMDClassifier(max_epochs=3, random_state=0, **{**settings, "optimizer__fused": False}).fit(X, y)
        np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-5)


class Weights(torch.nn.Module):
    """A linear model whose weights lie in memory in some way."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        drawn = torch.randn(4, 4)
        weights = {
            "in rows": drawn[:, :2].clone(),
            "in columns": drawn[:2].T,
            "with gaps": drawn[:, :2],
            "with strides": drawn[:, ::2],
            "with gaps, frozen": drawn[:, :2].clone(),
            "complex": drawn[:, :2].to(torch.complex64),
        }
        self.weights = torch.nn.Parameter(weights[layout])
        self.frozen = torch.nn.Parameter(drawn[:, ::2], requires_grad=False) if "frozen" in layout else None

    def forward(self, x):
        found = x.to(self.weights.dtype) @ self.weights
        return found.real if found.is_complex() else found


@pytest.mark.parametrize(
    ("layout", "fused"),
    [
        ("in rows", True),
        ("in columns", True),
        ("with gaps", False),
        ("with strides", False),
        ("with gaps, frozen", True),
        ("complex", False),
    ],
)
def test_adam_is_fused_where_it_can_be(layout, fused):
    """It goes through memory, gaps included, and takes no complex numbers."""
    X, y = make_classification(60, n_features=4, random_state=0)
    X = X.astype(np.float32)
    settings = {"module__layout": layout, "max_epochs": 3, "random_state": 0}
    model = BlockGMDClassifier(Weights, **settings).fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["fused"] is fused
    assert model.net_.get_params()["optimizer__fused"] is fused
    plain = BlockGMDClassifier(Weights, optimizer__fused=False, **settings).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X), atol=1e-5)
    model.partial_fit(X, y)
    assert model.net_.optimizer_.param_groups[0]["fused"] is fused


def test_a_wish_for_fused_steps_is_granted():
    X, y = make_classification(60, n_features=4, random_state=0)
    model = quick(module=Weights, module__layout="with gaps", optimizer__fused=True, max_epochs=1)
    model.fit(X.astype(np.float32), y)
    assert model.net_.optimizer_.param_groups[0]["fused"] is True


@pytest.mark.parametrize("n", [199, 200])
def test_samplers_choose_among_the_samples_that_were_given(rng, n):
    """Of small data too, whose equal samples may otherwise be merged."""
    X = rng.normal(size=(200, 3))
    y = (X[:, 0] > 0).astype(int)
    sampler = torch.utils.data.SubsetRandomSampler(np.flatnonzero(y == 1).tolist())
    model = quick(iterator_train__sampler=sampler, shuffle=False, batch_size=n, max_epochs=20, lr=0.05).fit(X, y)
    assert model.predict(X).all()


class Focal(torch.nn.Module):
    """A loss without a way to weigh samples."""

    def forward(self, predicted, target):
        p = predicted.log_softmax(dim=1).gather(1, target[:, None])
        return (-((1 - p.exp()) ** 2) * p).mean()


def test_equal_samples_need_no_weights(forked):
    X, y = load_iris(return_X_y=True)  # has one twice
    for batch_size in (100, 256):
        model = quick(module=torch.nn.Linear(4, 3), criterion=Focal, batch_size=batch_size, lr=0.05, max_epochs=60)
        assert model.fit(X, y).score(X, y) > 0.9
    assert quick(criterion=Focal, lr=0.05, max_epochs=60).fit(X, y).score(X, y) > 0.9


def test_sums_of_losses_keep_their_size(data):
    """Twice the weight is twice the gradient, where losses are added up."""
    settings = {"group_size": None, "optimizer": torch.optim.SGD, "lr": 1e-4, "max_epochs": 1, "shuffle": False}

    def moved(X, y, weight=None, **more):
        start = quick(**settings, **more, iterator_train__batch_size=1000).set_params(lr=1e-30)
        before = states(start.fit(X, y))
        after = states(quick(**settings, **more, iterator_train__batch_size=1000).fit(X, y, sample_weight=weight))
        return float((after["0.weight"] - before["0.weight"]).norm())

    X, y = data
    twice = np.concatenate([X, X]), np.concatenate([y, y])
    for reduction, factor in (("sum", 2.0), ("mean", 1.0)):
        once = moved(X, y, criterion__reduction=reduction)
        assert moved(X, y, np.full(160, 2.0), criterion__reduction=reduction) == pytest.approx(factor * once, rel=1e-3)
        assert moved(*twice, criterion__reduction=reduction) == pytest.approx(factor * once, rel=1e-3)


def test_losses_of_logarithms(data, forked):
    """skorch takes the logarithms of what comes out itself."""
    X, y = data
    layers = [torch.nn.Linear(4, 2), torch.nn.LogSoftmax(dim=-1)]
    with pytest.raises(ValueError, match="module must give probabilities for the criterion NLLLoss"):
        quick(module=torch.nn.Sequential(*layers), criterion=torch.nn.NLLLoss).fit(X, y)
    layers[1] = torch.nn.Softmax(dim=-1)
    model = quick(module=torch.nn.Sequential(*layers), criterion=torch.nn.NLLLoss, lr=0.05, max_epochs=40)
    assert model.fit(X, y).score(X, y) > 0.9


class Hashed(torch.nn.Module):
    """Looks up ids that float32 doesn't have; its class says nothing of it."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(97, 2)

    def forward(self, ids):
        return self.table(ids[:, 0].long() % 97)


class Wide(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 2, dtype=torch.float64)


class Holder(torch.nn.Module):
    """Has a child of the name ``module``, beside one that wants integers."""

    def __init__(self):
        super().__init__()
        self.module, self.table = torch.nn.Linear(2, 2), torch.nn.Embedding(97, 2)

    def forward(self, ids):
        return self.module(self.table(ids[:, 0] % 97))


def test_data_are_of_the_dtype_of_the_network_that_is_made(data, rng, forked):
    ids = rng.integers(0, 2**40, size=(400, 1))
    y = (ids[:, 0] % 97 > 48).astype(int)
    for module in (
        Hashed,
        Hashed(),
        Holder,
        Holder(),
        NeuralNetClassifier(Hashed, criterion=torch.nn.CrossEntropyLoss),
    ):
        settings = {"max_epochs": 40, "lr": 0.1}
        if isinstance(module, NeuralNetClassifier):
            module.set_params(optimizer=torch.optim.Adam, train_split=None, verbose=0, **settings)
            settings = {}
        assert quick(module=module, group_size=1, **settings).fit(ids, y).score(ids, y) > 0.95
    X, y = data
    for given in (X, X.astype(np.float32), np.rint(10 * X).astype(int)):
        assert quick(module=Wide, max_epochs=2).fit(given, y).predict_proba(given).dtype == np.float64


def test_numbers_beyond_the_networks_dtype(data, forked):
    X, y = data
    model = quick(module=torch.nn.Linear(4, 2), max_epochs=1).fit(X, y)
    far = X.copy()
    far[3, 1] = 1e39
    for call in (lambda: model.fit(far, y), lambda: model.predict(far)):
        with pytest.raises(ValueError, match=r"X must be finite in the network's dtype, float32; found 1e\+39"):
            call()


def test_threads_take_turns(data):
    X, y = data
    before = torch.get_rng_state()
    fits = [joblib.delayed(quick(module=Dropping, random_state=seed).fit)(X, y) for seed in (0, 1, 0, 1)]
    models = joblib.Parallel(4, backend="threading")(fits)
    for seed in (0, 1):
        expected = quick(module=Dropping, random_state=seed).fit(X, y).predict_proba(X)
        for model in models[seed::2]:
            np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert torch.equal(torch.get_rng_state(), before)


class Dropping(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(4, 20), torch.nn.Dropout(0.5), torch.nn.Linear(20, 2))


def test_predictions_draw_only_what_the_module_draws(data, forked):
    class Sampled(torch.nn.Module):
        """Drops in prediction, too."""

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, X):
            return self.layer(torch.nn.functional.dropout(X, 0.5, training=True))

    X, y = data
    model = quick(module=Sampled, group_size=8).fit(X, y)
    assert not np.array_equal(model.predict_proba(X), model.predict_proba(X))
    plain, before = quick().fit(X, y), torch.get_rng_state()
    plain.predict_proba(X)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_learns_begins_anew(data, forked):
    class Tempered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, predicted, target):
            return torch.nn.functional.cross_entropy(self.scale * predicted, target)

    model = quick(criterion=Tempered(), lr=0.05)
    first = model.fit(*data).loss_curve_
    assert model.fit(*data).loss_curve_ == first
    assert model.criterion.scale == 1.0


class Counted(Callback):
    """What can't be copied or pickled, and counts."""

    def __init__(self):
        self.epochs, self.lock = 0, threading.Lock()

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


def test_partial_fit_copies_nothing_that_is_not_trained(data, forked):
    class Local(torch.nn.Linear):
        """A class that can't be pickled, with a function that can't."""

        def __init__(self):
            super().__init__(4, 2)
            self.act = lambda values: values

        def forward(self, X):
            return self.act(super().forward(X))

    X, y = data
    counted = Counted()
    model = quick(module=Local, callbacks=[counted], optimizer__weight_decay=0.01)
    for _ in range(3):
        model.partial_fit(X, y, classes=["no", "yes"])
    assert counted.epochs == 3
    assert model.n_iter_ == 3
    # The optimizer's state is of the parameters that are trained.
    assert set(model.net_.optimizer_.state) == set(model.module_.parameters())


def test_class_weights_where_a_batch_lacks_a_class(data):
    X, y = data
    model = quick(class_weight={"yes": 5.0})
    for label in ("no", "yes"):
        model.partial_fit(X[y == label], y[y == label], classes=["no", "yes"])
    assert model.n_iter_ == 2


@pytest.mark.parametrize("factor", [1e-50, 1.0, 1e60])
@pytest.mark.parametrize("gradients", ["one_pass", "micro_batches"])
def test_weights_of_any_size(data, factor, gradients):
    X, y = data
    weight = np.random.default_rng(0).uniform(0.5, 1.5, size=160)
    settings = {"group_size": 4, "gradients": gradients, "max_epochs": 5}
    expected = quick(**settings).fit(X, y, sample_weight=weight).predict_proba(X)
    found = quick(**settings).fit(X, y, sample_weight=factor * weight).predict_proba(X)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_splits_that_lose_the_weights(data):
    X, y = data
    with pytest.raises(ValueError, match=r"train_split must give the training data or a subset of them.*weights"):
        quick(train_split=_halves).fit(X, y, sample_weight=np.arange(160.0))
    assert np.isnan(quick(train_split=_halves).fit(X, y).sample_trust_).all()


def _halves(dataset, y=None):
    return Dataset(dataset.X[60:], dataset.y[60:]), None


def test_what_sets_itself_up_by_its_first_data(data, forked):
    class Normalized(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.layer = None, torch.nn.Linear(4, 2)

        def forward(self, X):
            if self.scale is None:
                self.scale = 1.0 / X.std(dim=0)
            return self.layer(X * self.scale)

    X, y = data
    X = np.column_stack([X[:, :3], np.repeat([0.0, 1.0], 80)])  # sorted by a feature
    assert quick(module=Normalized, max_epochs=40, lr=0.05).fit(X, y).score(X, y) > 0.9


@pytest.mark.filterwarnings("ignore:No rule withstands")
def test_a_single_group_is_corrupted_as_well(data):
    X, y = data
    settings = {"group_size": None, "lr": 0.05, "max_epochs": 20}
    assert quick(gradient_corruption=BitFlip(1.0), **settings).fit(X, y).score(X, y) < 0.5


def test_predictions_without_an_axis(data, forked):
    class Squeezed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, X):
            return self.layer(X).squeeze()

    X, y = data[0], data[0] @ [1.0, -1.0, 0.5, 0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of a target with an axis more
        model = BlockGMDRegressor(Squeezed, gradients="micro_batches", max_epochs=3, random_state=0).fit(X, y)
    assert model.predict(X).shape == (160,)


def test_weights_of_classes_and_of_samples(data, forked):
    """As torch has it of each sample so many times, merged or not."""
    X, y = data
    weight = np.random.default_rng(0).integers(1, 5, size=160)
    settings = {"group_size": 1, "aggregator": "mean", "max_epochs": 1, "optimizer": torch.optim.SGD, "lr": 0.1}
    settings |= {"criterion__weight": torch.tensor([1.0, 10.0], dtype=torch.float64), "batch_size": 1000}
    losses = [
        quick(**settings, **more).fit(*samples).loss_curve_
        for samples in ((X, y, weight), (np.repeat(X, weight, axis=0), np.repeat(y, weight)))
        for more in ({}, {"iterator_train__drop_last": False}, {"gradients": "micro_batches"})
    ]
    np.testing.assert_allclose(losses, losses[0] * np.ones((6, 1)), rtol=1e-6)


def test_callbacks_see_the_samples_that_were_given(data):
    X, y = data
    X, y = np.concatenate([X, np.repeat(X[:1], 90, axis=0)]), np.concatenate([y, np.repeat(y[:1], 90)])
    scoring = EpochScoring("accuracy", on_train=True, use_caching=False, name="seen", lower_is_better=False)
    model = quick(callbacks=[scoring]).fit(X, y)
    assert model.history_[-1, "seen"] == pytest.approx(model.score(X, y), abs=1e-6)


class KeepsAnActivation(torch.nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

    def forward(self, X):
        self.activation = super().forward(X).tanh()
        self.kept = {"all": [self.activation, (self.activation * 2, 3)]}
        return self.activation


class Hooked(NeuralNetClassifier):
    """A net whose optimizer counts its steps."""

    def initialize_optimizer(self, *args, **kwargs):
        super().initialize_optimizer(*args, **kwargs)
        self.counted_ = []
        self.optimizer_.register_step_post_hook(lambda *args: self.counted_.append(1))
        return self


def test_what_torch_does_not_copy_goes_on(data, forked):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is a newer one
        normalized = torch.nn.utils.weight_norm(torch.nn.Linear(4, 2), dim=0)
    kinds = [
        quick(module=KeepsAnActivation),
        quick(optimizer=torch.optim.LBFGS, optimizer__max_iter=3, group_size=8),
        quick(module=normalized, gradients="micro_batches"),
        quick(optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.01),
    ]
    for model in kinds:
        for _ in range(3):
            model.partial_fit(X, y, classes=["no", "yes"])
        assert model.n_iter_ == 3
    # Of a module that is given it takes the state that it is in, and no pickle.
    net = RobustNeuralNetClassifier(normalized, criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0)
    net.fit(X.astype(np.float32), (y == "yes").astype(int))
    twin = copied(net)
    twin.partial_fit(X.astype(np.float32), (y == "yes").astype(int))
    assert not torch.equal(twin.module_.weight_v, net.module_.weight_v)
    # Momentum goes on.
    assert all("momentum_buffer" in state for state in kinds[-1].net_.optimizer_.state.values())
    net = Hooked(torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0)
    model = quick(module=net)
    for _ in range(2):
        model.partial_fit(X.astype(np.float32), y, classes=["no", "yes"])
        assert len(model.net_.counted_) == 2


def test_a_failed_training_leaves_callbacks_as_they_were(data):
    X, y = data
    stopping = EarlyStopping(monitor="train_loss", load_best=True)
    model = quick(callbacks=[stopping, Fails()], warm_start=True).fit(X, y)
    before = dict(vars(stopping))
    Fails.armed = True
    try:
        with pytest.raises(RuntimeError, match="in the middle"):
            model.fit(X, y)
    finally:
        Fails.armed = False
    assert vars(stopping) == before


class Listed(torch.nn.ModuleList):
    """A loss that is empty as a list."""

    def forward(self, predicted, target):
        return 7.0 + 0.0 * predicted.sum()


class Mine(torch.nn.MSELoss):
    pass


def test_losses_are_taken_for_what_they_are(data, line, forked):
    X, y = data
    assert quick(criterion=Listed(), max_epochs=1).fit(X, y).loss_curve_ == [7.0]
    with pytest.raises(ValueError, match="an output for each target"):
        BlockGMDRegressor(torch.nn.Linear(3, 1), criterion=Mine).fit(line[0], np.stack([line[1]] * 2, axis=1))

    class Logarithmic(NeuralNetClassifier):
        get_loss = NeuralNet.get_loss

    layers = [torch.nn.Linear(4, 2), torch.nn.LogSoftmax(dim=-1)]
    settings = {"lr": 0.05, "max_epochs": 40, "optimizer": torch.optim.Adam, "train_split": None, "verbose": 0}
    net = Logarithmic(torch.nn.Sequential(*layers), criterion=torch.nn.NLLLoss, **settings)
    assert quick(module=net).fit(X, y).score(X, y) > 0.9
    warm = quick(warm_start=True).fit(X, y)
    with pytest.warns(
        UserWarning, match=r"keeps the parameters that it began with; found criterion=.*BCEWithLogitsLoss"
    ):
        assert warm.set_params(criterion=torch.nn.BCEWithLogitsLoss).fit(X, y).n_iter_ == 20


def test_half_networks(data, forked):
    X, y = data
    module = torch.nn.Linear(4, 2).half()
    assert quick(module=module, max_epochs=1).fit(X, y).module_.weight.dtype == torch.float16
    with pytest.raises(ValueError, match="dtype that NumPy has; found bfloat16"):
        quick(module=module.bfloat16()).fit(X, y)


class Alternating(torch.nn.Module):
    """Uses one of two layers in each step."""

    def __init__(self):
        super().__init__()
        self.layers, self.calls = torch.nn.ModuleList(torch.nn.Linear(4, 2) for _ in range(2)), 0

    def forward(self, X):
        self.calls += self.training
        return self.layers[self.calls % 2](X)


def test_what_a_memory_kept_comes_to_layers_that_this_step_does_not_use(data, monkeypatch):
    X, y = data
    seen = []
    add = GradientMatrix.add_to_gradients

    def spy(self, vector):
        parts = [part.any() for part in torch.split(vector, self.sizes)]
        add(self, vector.clone())
        states = zip(self.used, parts, self.parameters, strict=True)
        seen.extend((used, bool(nonzero), parameter.grad is not None) for used, nonzero, parameter in states)

    monkeypatch.setattr(GradientMatrix, "add_to_gradients", spy)
    quick(module=Alternating, memory="weighted", beta=0.3, block="coordinate", group_size=4, batch_size=40).fit(X, y)
    late = [with_gradient for used, nonzero, with_gradient in seen if nonzero and not used]
    assert late
    assert all(late)
    assert not all(with_gradient for used, nonzero, with_gradient in seen if not used and not nonzero)


class PlainRenamed(Renamed, NeuralNetClassifier):
    """Not robust yet, with other names for its module and its loss."""


@pytest.mark.parametrize("group_size", [1, 8, None])
def test_nets_with_other_names_for_their_parts(data, group_size, forked):
    X, y = data
    net = PlainRenamed(
        torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, lr=0.5, train_split=None, max_epochs=20, verbose=0
    )
    model = quick(module=net, group_size=group_size).fit(X, y, sample_weight=np.arange(1.0, 161.0))
    assert model.score(X, y) > 0.9
    assert model.module_ is model.net_.network_
    assert model.partial_fit(X, y).n_iter_ == 21


@pytest.mark.parametrize("group_size", [1, 8, None])
def test_losses_that_are_means_cannot_be_weighted(data, group_size, forked):
    class Averages(torch.nn.CrossEntropyLoss):
        def forward(self, predicted, target):
            return torch.nn.functional.cross_entropy(predicted, target)

    X, y = data
    model = quick(module=torch.nn.Linear(4, 2), criterion=Averages, group_size=group_size)
    match = "criterion must give a loss for each sample where its reduction is 'none', for sample_weight"
    # A sample's mean is its loss.
    expected = nullcontext() if group_size == 1 else pytest.raises(ValueError, match=match)
    with expected:
        model.fit(X, y, sample_weight=np.arange(1.0, 161.0))
    model.set_params(class_weight={"no": 1.0, "yes": 3.0})
    with expected:
        model.fit(X, y)
    model.set_params(group_size=group_size and 1)
    with pytest.raises(ValueError, match=match):
        model.fit(X, y, groups=np.arange(160) % 3)
    model.set_params(class_weight=None).fit(X, y, groups=np.arange(160) % 3)


def test_what_is_squashed_twice_is_told_of(data, forked):
    X, y = data
    module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Softmax(dim=-1))
    with pytest.warns(UserWarning, match="must give logits for the criterion CrossEntropyLoss"):
        quick(module=module).fit(X, y)
    module = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid())
    with pytest.warns(UserWarning, match="must give logits for the criterion BCEWithLogitsLoss"):
        quick(module=module, criterion=torch.nn.BCEWithLogitsLoss).fit(X, y)


class OwnStep(NeuralNetClassifier):
    def train_step_single(self, batch, **fit_params):
        return super().train_step_single(batch, **fit_params)


def test_nets_with_a_step_of_their_own(data, forked):
    net = OwnStep(torch.nn.Linear(4, 2), criterion=torch.nn.CrossEntropyLoss, train_split=None, verbose=0)
    with pytest.raises(TypeError, match=r"skorch's own training step.*found OwnStep\.train_step_single"):
        quick(module=net).fit(*data)


LABELS = np.array(["a", "b"] * 20)
MISSING = {
    "None": np.where(np.arange(40) == 3, None, LABELS),
    "NA": pd.Series(LABELS, dtype="string").mask(np.arange(40) == 3),
    "NA, objects": np.where(np.arange(40) == 3, pd.NA, LABELS.astype(object)),
    "NaN": np.where(np.arange(40) == 3, np.nan, LABELS.astype(object)),
    "NA, integers": pd.Series(np.arange(40) % 2, dtype="Int64").mask(np.arange(40) == 3),
    "NA, booleans": pd.Series(np.arange(40) % 2 == 0, dtype="boolean").mask(np.arange(40) == 3),
    "category": pd.Series(LABELS, dtype="category").mask(np.arange(40) == 3),
}


def briefly(kind):
    return kind(max_epochs=1, hidden_layer_sizes=(4,), random_state=0)


@pytest.mark.parametrize("kind", list(MISSING))
def test_labels_that_are_missing(kind, rng):
    X = rng.normal(size=(40, 3))
    model = briefly(BlockGMDClassifier).fit(X, LABELS)
    before = dict(vars(model))
    with pytest.raises(ValueError, match="y must have no missing values; found None, NA or NaN at position 3"):
        model.fit(X, MISSING[kind])
    assert vars(model) == before


def test_targets_that_are_missing(rng):
    X, y = rng.normal(size=(40, 3)), np.arange(40.0)
    for given in (
        np.where(np.arange(40) == 3, None, y.astype(object)),
        pd.Series(y, dtype="Float64").mask(y == 3),
        pd.DataFrame({"a": y, "b": pd.Series(y, dtype="Float64").mask(y == 3)}),
    ):
        with pytest.raises(ValueError, match="y must have no missing values; found None, NA or NaN at position 3"):
            briefly(BlockGMDRegressor).fit(X, given)


def test_masks_and_dates_are_no_data(rng):
    X, y = rng.normal(size=(40, 3)), np.arange(40.0)
    masked = np.ma.masked_array(X, mask=np.eye(40, 3))
    for kind, targets in ((BlockGMDClassifier, LABELS), (BlockGMDRegressor, y)):
        model = briefly(kind).fit(np.ma.masked_array(X, mask=False), targets)
        for method in (lambda X, model=model, y=targets: model.fit(X, y), model.predict):
            with pytest.raises(ValueError, match="X must have no masked entries; found 3 of them"):
                method(masked)
            for dtype in ("datetime64[s]", "timedelta64[s]"):
                with pytest.raises(TypeError, match="X must hold no dates or durations; found dtype"):
                    method((100 * X).astype(dtype))
        with pytest.raises(ValueError, match="y must have no masked entries; found 1 of them"):
            model.fit(X, np.ma.masked_array(targets, mask=np.arange(40) == 1))
        with pytest.raises(ValueError, match="sample_weight must have no masked entries"):
            model.fit(X, targets, sample_weight=np.ma.masked_array(np.ones(40), mask=np.arange(40) == 1))
        with pytest.raises(TypeError, match="sample_weight must hold no dates or durations"):
            model.fit(X, targets, sample_weight=np.ones(40).astype("timedelta64[s]"))
    with pytest.raises(TypeError, match="y must hold no dates or durations"):
        briefly(BlockGMDRegressor).fit(X, y.astype("timedelta64[s]"))


def test_frames_that_know_missing_values_are_data(rng):
    X, y = rng.normal(size=(40, 3)), np.arange(40.0)
    frame = pd.DataFrame(X, columns=list("abc"), dtype="Float64")
    for kind, given, targets in (
        (BlockGMDClassifier, LABELS, pd.Series(LABELS, dtype="string")),
        (BlockGMDRegressor, y, pd.Series(y, dtype="Float64")),
    ):
        expected = briefly(kind).fit(X, given).predict(X)
        np.testing.assert_array_equal(briefly(kind).fit(frame, targets).predict(frame), expected)
        with pytest.raises(ValueError, match="X contains NaN"):
            briefly(kind).fit(frame.mask(np.eye(40, 3) > 0), targets)


@pytest.mark.filterwarnings("ignore:group_size must be smaller than the batches")
@pytest.mark.parametrize("settings", [{}, {"beta": 0.3}, {"group_size": 2}, {"gradients": "micro_batches"}], ids=str)
@pytest.mark.parametrize("name", list(ZOO))
def test_every_hard_matrix(name, settings):
    X = np.vstack([ZOO[name]] * 2)
    for kind, y in ((BlockGMDClassifier, np.arange(len(X)) % 2), (BlockGMDRegressor, X[:, 0])):
        model = kind(max_epochs=2, random_state=0, hidden_layer_sizes=(5,), **settings).fit(X, y)
        assert np.isfinite(np.asarray(model.predict(X), dtype=np.float64)).all()
        assert all(bool(parameter.isfinite().all()) for parameter in model.module_.parameters())


class TwoInputs(torch.nn.Linear):
    """A module of two inputs by their names."""

    def __init__(self):
        super().__init__(4, 2)

    def forward(self, a, b):
        return super().forward(torch.cat([a, b], dim=1).float())


class Flat(torch.nn.Linear):
    """A module of images."""

    def __init__(self):
        super().__init__(4, 2)

    def forward(self, X):
        return super().forward(X.float().flatten(1))


class MeanOfTokens(torch.nn.EmbeddingBag):
    """A module of sequences of different lengths, padded by zeros."""

    def __init__(self):
        super().__init__(9, 2, padding_idx=0)


def padded(pairs):
    X, y = zip(*pairs, strict=True)
    tokens = [torch.as_tensor(np.asarray(each)) for each in X]
    return torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True), torch.as_tensor(np.asarray(y))


#: Values of parameters that are set after a fit, whether or not they could be fitted with.
SET_LATER = {
    "module": [None, Flat, MeanOfTokens(), NeuralNetClassifier(Flat), "odd"],
    "criterion": [torch.nn.BCEWithLogitsLoss, torch.nn.NLLLoss(), "odd"],
    "optimizer": [torch.optim.SGD],
    "device": ["cuda", "odd"],
    "class_weight": ["balanced", {0: 2.0}],
    "predict_nonlinearity": [None, torch.sigmoid],
    "iterator_train__collate_fn": [padded],
    "iterator_valid__collate_fn": [padded],
    "iterator_valid__batch_size": [1],
    "module__in_features": [7],
    "optimizer__momentum": [0.9],
    "criterion__reduction": ["sum"],
}
#: Estimators by what their X is.
OF_DATA = {
    "array": BlockGMDClassifier,
    "array of a regressor": BlockGMDRegressor,
    "several labels": BlockGMDClassifier,
    "images": partial(BlockGMDClassifier, Flat),
    "dict": partial(BlockGMDClassifier, TwoInputs),
    "sequences": partial(
        BlockGMDClassifier, MeanOfTokens, iterator_train__collate_fn=padded, iterator_valid__collate_fn=padded
    ),
    "array of a net": partial(
        BlockGMDClassifier,
        NeuralNetClassifier(Flat, criterion=torch.nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0),
    ),
}


@pytest.mark.parametrize("kind", OF_DATA)
def test_parameters_that_are_set_later_are_of_the_next_fit(kind, rng, forked):
    X = rng.normal(size=(40, 4))
    y = X[:, :2] > 0.0 if kind == "several labels" else X[:, 0] if "regressor" in kind else (X[:, 0] > 0).astype(int)
    if kind == "images":
        X = X.reshape(40, 2, 2)
    elif kind == "dict":
        X = {"a": X[:, :2], "b": X[:, 2:]}
    elif kind == "sequences":
        X = [rng.integers(1, 9, size=1 + n % 5).tolist() for n in range(40)]
    epochs = {} if kind == "array of a net" else {"max_epochs": 2}
    model = OF_DATA[kind](random_state=0, **epochs).fit(X, y)
    ways = ["predict", "predict_proba"] if hasattr(model, "predict_proba") else ["predict"]

    def found(fitted):
        predicted = [getattr(fitted, way)(X) for way in ways]
        # Lists are samples of arrays, unless something of the user's own collates them.
        predicted += [fitted.predict(X.tolist())] if "array" in kind else []
        losses = [sample_losses(fitted, X, y)] if kind != "sequences" else []
        kept = [fitted.score(X, y), fitted.sample_trust_, fitted.loss_curve_, find_suspects(fitted, 5)]
        return [*predicted, *losses, *kept, [*fitted.to_module().state_dict().values()]]

    expected = found(model)
    values = {name: [object()] for name in model.get_params(deep=False)} | SET_LATER
    if "regressor" in kind:
        values = {name: held for name, held in values.items() if name not in ("class_weight", "predict_nonlinearity")}
    for name in sorted(values):
        # Those of a net that is the module are set in it.
        for value in values[name] if not (kind == "array of a net" and name.startswith("module__")) else ():
            twin = copy.copy(model).set_params(**{name: value})
            for each, other in zip(found(twin), expected, strict=True):
                assert repr(each) == repr(other), (name, value)
    every = copy.copy(model).set_params(**{name: None for name in values if "__" not in name})
    assert repr(found(pickle.loads(pickle.dumps(every)))) == repr(expected)


def test_a_training_goes_on_with_the_kind_of_data_that_it_began_with(data, forked):
    X, y = data
    model = BlockGMDClassifier(Flat, max_epochs=2, random_state=0, warm_start=True).fit(X.reshape(-1, 2, 2), y)
    with pytest.warns(UserWarning, match="keeps the parameters that it began with; found module=None"):
        model.set_params(module=None).fit(X.reshape(-1, 2, 2), y)
    assert model.n_iter_ == 4
    assert model.set_params(warm_start=False).fit(X, y).predict(X).shape == y.shape


@pytest.mark.parametrize("kind", [BlockGMDClassifier, BlockGMDRegressor])
def test_tensors_with_a_gradient_are_data(kind, rng):
    X = rng.normal(size=(40, 3))
    y, weight = np.round(X[:, 0]).clip(-1.0, 1.0), rng.uniform(1.0, 2.0, size=40)
    clients = np.repeat(np.arange(8.0), 5)
    given = [torch.tensor(values, requires_grad=True) for values in (X, y, weight, clients)]
    settings = {"max_epochs": 2, "random_state": 0}
    model, other = kind(**settings).fit(X, y), kind(**settings).fit(*given[:2])
    expected = model.predict(X)
    np.testing.assert_array_equal(other.predict(given[0]), expected)
    assert model.score(*given[:3]) == model.score(X, y, weight)
    np.testing.assert_array_equal(sample_losses(model, *given[:2]), sample_losses(model, X, y))
    for name, of_sample, plain in (
        ("sample_weight", given[2], weight),
        ("clients", given[3], clients),
        ("sample_id", given[0][:, 1], X[:, 1]),
    ):
        found, wanted = (
            kind(**settings).fit(*data, **{name: values}).predict(X)
            for data, values in ((given[:2], of_sample), ((X, y), plain))
        )
        np.testing.assert_array_equal(found, wanted)
