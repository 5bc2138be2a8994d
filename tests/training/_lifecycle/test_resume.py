"""Trainings that are resumed go on exactly."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import resuming
import torch
from checkpointed import assert_same, assert_same_training, estimator, plain_net
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, LoadInitState, TrainEndCheckpoint
from skorch.dataset import Dataset

from nets import dataset_of
from skbgmd import BlockGMDClassifier, RobustNeuralNetClassifier
from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.training._lifecycle.checkpoints import KEY
from skbgmd.training._strength.defaults import HUBER_OF_CLASSES, default_rule

SCRIPT = Path(__file__).with_name("resuming.py")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Trainings that went through, and the same ones killed and resumed in another process."""
    folder = tmp_path_factory.mktemp("resumed")
    paths = [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    for mode in ("kill", "resume"):
        subprocess.run([sys.executable, str(SCRIPT), mode, str(folder)], check=True, env=environment)
    return [torch.load(folder / f"{mode}.pt", weights_only=False) for mode in ("kill", "resume")]


@pytest.mark.parametrize("name", list(resuming.TRAININGS))
def test_a_killed_training_goes_on_as_if_it_had_not_been(outcomes, name):
    whole, resumed = (found[name] for found in outcomes)
    assert whole["epochs"] > resuming.KILLED or name == "early stopping" or name.endswith("over")
    for part in whole:
        assert_same(resumed[part], whole[part])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("kind", [Checkpoint, TrainEndCheckpoint])
def test_max_epochs_of_an_estimator_are_all_of_them(data, folder, tmp_path, kind):
    whole = estimator(tmp_path / "whole", epochs=7).fit(*data)
    assert estimator(folder, kind=kind, epochs=4).fit(*data).n_iter_ == 4
    resumed = estimator(folder, kind=kind, epochs=7, random_state=None).fit(*data)
    assert_same_training(resumed, whole)
    # What is over isn't trained again, and that is told.
    with pytest.warns(UserWarning, match="has all of max_epochs=7 epochs already: nothing is left to train"):
        over = estimator(folder, kind=kind, epochs=7, random_state=None).fit(*data)
    assert_same_training(over, whole)
    # A call for one epoch more is for one epoch more.
    more = estimator(folder, kind=kind, epochs=7, random_state=None).partial_fit(*data, classes=["no", "yes"])
    assert more.n_iter_ == 8
    assert_same_training(more, estimator(tmp_path / "longer", epochs=8).fit(*data))


def test_on_a_device(data, folder, cuda, tmp_path):
    """Its generators are the device's; sums there may be of another order each time."""
    settings = {"module": resuming.Own, "device": "cuda"}
    whole = estimator(tmp_path / "whole", epochs=6, **settings).fit(*data)
    estimator(folder, epochs=3, **settings).fit(*data)
    resumed = estimator(folder, epochs=6, **{**settings, "random_state": None}).fit(*data)
    np.testing.assert_allclose(resumed.loss_curve_, whole.loss_curve_, rtol=1e-3)


def test_a_wrapped_net_is_resumed(data, folder, tmp_path):
    def trained(where, epochs, seed):
        checkpoint = Checkpoint(monitor=None, dirname=str(where))
        callbacks = [("checkpoint", checkpoint), ("load", LoadInitState(checkpoint))]
        given = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "verbose": 0, "callbacks": callbacks}
        net = NeuralNetClassifier(resuming.Own, max_epochs=epochs, iterator_train__shuffle=True, **given)
        return BlockGMDClassifier(net, random_state=seed).fit(data[0].astype(np.float32), data[1])

    assert trained(folder, 3, 0).n_iter_ == 3
    assert_same_training(trained(folder, 6, 1), trained(tmp_path / "whole", 6, 0))


def shuffled_net(callbacks=(), **settings):
    rule = BlockGeometricMedian(beta=0.5, selection="sample", complement="memory")
    settings = {"iterator_train__shuffle": True, "max_epochs": 3, "aggregator": rule, **settings}
    return plain_net(RobustNeuralNetClassifier, callbacks=list(callbacks), **settings)


@pytest.mark.usefixtures("forked")
def test_max_epochs_of_a_net_are_so_many_more(data, folder):
    """As in skorch; the first training goes on in memory, the others from files."""
    X, y = data[0], (data[1] == "yes").astype(np.int64)
    end = TrainEndCheckpoint(dirname=str(folder))
    whole = shuffled_net([end, LoadInitState(end)]).fit(X, y)
    torch.manual_seed(1)
    by_hand = shuffled_net().initialize()
    by_hand.load_params(checkpoint=whole.callbacks[0].checkpoint_)
    other = copy.deepcopy(torch.get_rng_state())
    by_hand.partial_fit(X, y)
    torch.manual_seed(2)
    resumed = shuffled_net([end, LoadInitState(end)]).fit(X, y)
    assert len(resumed.history) == len(by_hand.history) == 6
    assert_same(dict(by_hand.module_.state_dict()), dict(resumed.module_.state_dict()))
    np.testing.assert_array_equal(by_hand.sample_trust(160), resumed.sample_trust(160))
    # Whoever begins anew isn't held to what was loaded.
    torch.set_rng_state(other)
    by_hand.load_params(checkpoint=resumed.callbacks[0].checkpoint_)
    by_hand.fit(X, y)
    anew = by_hand.module_.state_dict()
    torch.set_rng_state(other)
    assert len(by_hand.history) == 3
    assert_same(dict(anew), dict(by_hand.fit(X, y).module_.state_dict()))


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("names", [("f_params", "f_optimizer", "f_history"), ("f_params", "f_aggregator")])
@pytest.mark.parametrize("clients", [True, False])
def test_the_rule_of_clients_keeps_what_was_loaded_for_it(data, folder, names, clients):
    """Before there are data it is that of single samples, where group_size=1."""
    X, y = data[0], (data[1] == "yes").astype(np.int64)
    held = dataset_of(X, y, None, np.arange(160) % 5) if clients else Dataset(X, y)
    folder.mkdir()
    files = {name: folder / name for name in names}
    rule = default_rule(huber=HUBER_OF_CLASSES, of_samples=not clients)

    def begun(**settings):
        return plain_net(RobustNeuralNetClassifier, group_size=1, batch_size=16, lr=0.2, **settings)

    whole = begun().fit(held, None)
    assert whole.aggregator_.n_batches == (4 if clients else 20)
    whole.save_params(**files)
    state = whole.aggregator_.state_dict()
    net = begun(max_epochs=0).initialize()
    net.load_params(**files)
    net.partial_fit(held, None)
    assert net.aggregator_.aggregator.get_params() == rule.get_params()
    assert_same(net.aggregator_.state_dict(), state)
    # What was learnt by it goes on from there, to the last bit.
    for each in (whole, net):
        each.set_params(max_epochs=2).partial_fit(held, None)
    assert_same(dict(net.module_.state_dict()), dict(whole.module_.state_dict()))
    assert_same(net.aggregator_.state_dict(), whole.aggregator_.state_dict())
    # What came after it isn't undone by another rule.
    net.set_params(group_size=1 if clients else 2).partial_fit(Dataset(X, y), None)
    assert net.aggregator_.n_batches == 20


@pytest.mark.usefixtures("forked")
def test_a_checkpoint_without_the_rules_state_says_so(data, folder):
    X, y = data[0], (data[1] == "yes").astype(np.int64)
    plain = plain_net(NeuralNetClassifier, callbacks=[Checkpoint(dirname=str(folder), monitor=None)]).fit(X, y)
    checkpoint = Checkpoint(dirname=str(folder), monitor=None)
    net = plain_net(RobustNeuralNetClassifier, callbacks=[LoadInitState(checkpoint)])
    with pytest.warns(UserWarning, match="no state of a training.*the state of the rule"):
        net.fit(X, y)
    # Nor has one that leaves the optimizer's file out.
    short = Checkpoint(dirname=str(folder), monitor=None, f_optimizer=None, f_aggregator="aggregator.pt")
    plain_net(RobustNeuralNetClassifier, callbacks=[short]).fit(X, y)
    with pytest.warns(UserWarning, match="at most: the generators"):
        plain_net(RobustNeuralNetClassifier, callbacks=[LoadInitState(short)]).fit(X, y)
    file = io.BytesIO()
    plain.save_params(f_optimizer=file)
    file.seek(0)
    with pytest.warns(UserWarning, match="no state of a training"):
        net.load_params(f_optimizer=file)
    # Parameters alone are not to go on with.
    net.load_params(f_params=folder / "params.pt")


def test_the_state_of_another_rule_begins_anew(data, folder):
    estimator(folder, memory="weighted", beta=0.3).fit(*data)
    found = r"BlockGeometricMedian\(HuberMean\), for the training.*found CoordinatewiseMedian"
    with pytest.warns(UserWarning, match=found):
        estimator(folder, epochs=6, aggregator="coordinate_median").fit(*data)


@pytest.mark.usefixtures("forked")
def test_the_best_epoch_is_loaded_without_its_generators(data, folder):
    X, y = data[0], (data[1] == "yes").astype(np.int64)
    best = Checkpoint(dirname=str(folder), monitor=lambda net: len(net.history) == 2, load_best=True)
    net = plain_net(RobustNeuralNetClassifier, callbacks=[best], max_epochs=4, iterator_train__shuffle=True)
    drawn = torch.get_rng_state()
    net.fit(X, y)
    assert len(net.history) == 2
    after = torch.get_rng_state()
    assert not torch.equal(after, drawn)
    state = torch.load(folder / "optimizer.pt", weights_only=True)[KEY]
    assert not torch.equal(after, state["generators"]["torch"])
    np.testing.assert_array_equal(net._trust_.state_dict()["sums"], state["trust"]["sums"])
    net.partial_fit(X, y)
    assert not torch.equal(torch.get_rng_state(), after)


def test_loading_leaves_the_generators_where_they_are(data, folder):
    model = estimator(folder).fit(*data)
    # The fixture for all tests looks at the generators of NumPy and torch.
    model.net_.load_params(checkpoint=Checkpoint(dirname=str(folder), monitor=None))


def test_a_pickle_has_no_generators(data, folder):
    net = estimator(folder).fit(*data).net_
    assert not {"_began_", "_generators_", "_loaded_", "_resumed_"} & set(net.__getstate__())
    assert json.loads((folder / "history.json").read_text()) == net.history
