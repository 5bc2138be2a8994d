"""Files of checkpoints: of one moment, whole, read by others; what can't be written or loaded is told of."""

from __future__ import annotations

import copy
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpointed import assert_same, assert_same_training, estimator, plain_net
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, LoadInitState

from skbgmd import BlockGMDClassifier, RobustNeuralNetClassifier
from skbgmd.aggregators import Aggregator, BlockGeometricMedian, Mean
from skbgmd.training._lifecycle.checkpoints import KEY


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoint"


def test_others_read_the_files(data, folder):
    model = estimator(folder).fit(*data)
    read = {name: torch.load(folder / f"{name}.pt", weights_only=True) for name in ("params", "optimizer", "criterion")}
    assert set(read["optimizer"]) == {"state", "param_groups", KEY}
    module = copy.deepcopy(model.module_)
    net = NeuralNetClassifier(module, optimizer=torch.optim.Adam, criterion=torch.nn.CrossEntropyLoss).initialize()
    net.load_params(checkpoint=Checkpoint(dirname=str(folder), monitor=None))
    assert_same(net.optimizer_.state_dict()["state"], model.net_.optimizer_.state_dict()["state"])
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize("stale", [["history.json"], ["history.json", "params.pt"]])
def test_a_checkpoint_killed_between_two_files_is_of_one_moment(data, folder, tmp_path, stale):
    """skorch writes the criterion, the optimizer, the parameters and the history, one after the other."""
    estimator(folder, epochs=3).fit(*data)
    kept = {name: (folder / name).read_bytes() for name in stale}
    estimator(folder, epochs=4).fit(*data)
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    with pytest.warns(UserWarning, match="interrupted while it was saved"):
        resumed = estimator(folder, epochs=6).fit(*data)
    assert_same_training(resumed, estimator(tmp_path / "whole", epochs=6).fit(*data))


def test_a_checkpoint_that_lacks_a_file_or_is_broken(data, folder):
    model = estimator(folder).fit(*data)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("params.pt", "optimizer.pt", "history.json"):
        for content in (b"", before[name][: len(before[name]) // 2], b"nothing of the kind"):
            (folder / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{name} must be a whole file"):
                estimator(folder, epochs=6).fit(*data)
        (folder / name).write_bytes(before[name])
    (folder / "params.pt").unlink()
    with pytest.raises(ValueError, match=r"must have all of its files; found .*history.json, but not .*params.pt"):
        model.set_params(max_epochs=6).fit(*data)
    assert model.n_iter_ == 4
    # Without a history the first one was interrupted before it was complete.
    (folder / "history.json").unlink()
    with pytest.warns(UserWarning, match=r"found .*optimizer.pt, but not .*params.pt, .*history.json: it was interr"):
        assert estimator(folder, epochs=5).fit(*data).n_iter_ == 5
    for name in ("optimizer.pt", "params.pt", "history.json"):
        (folder / name).unlink()
    with pytest.warns(UserWarning, match=r"found .*criterion.pt, but not .*nothing of it is loaded"):
        assert estimator(folder, epochs=2).fit(*data).n_iter_ == 2
    (folder / "history.json").unlink()
    torch.save(model.net_.optimizer_.state_dict(), folder / "optimizer.pt")
    with pytest.raises(ValueError, match=r"must have all of its files; found .*, but not .*history.json"):
        estimator(folder, epochs=6).fit(*data)


class Scaled(torch.nn.CrossEntropyLoss):
    """A loss that is learnt, too."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, predicted, y):
        return super().forward(self.scale * predicted, y)


class Several(RobustNeuralNetClassifier):
    """A net of two modules and two optimizers: files before and after that of the first."""

    def initialize_module(self):
        super().initialize_module()
        self.encoder_ = torch.nn.Linear(4, 4).double()
        return self

    def initialize_optimizer(self):
        first = [*self.module_.parameters(), *self.criterion_.parameters()]
        self.optimizer_ = torch.optim.SGD(first, lr=0.1, momentum=0.9)
        self.slow_ = torch.optim.SGD(self.encoder_.parameters(), lr=0.05, momentum=0.9)
        return self

    def infer(self, x, **fit_params):
        return super().infer(self.encoder_(x), **fit_params)


#: In the order in which skorch writes them.
ORDER = ["criterion", "encoder", "optimizer", "params", "slow", "history"]
PARTS = ["criterion_", "encoder_", "module_", "optimizer_", "slow_", "aggregator_"]


def checkpoint_of_several(folder, **files):
    files = {"f_encoder": "encoder.pt", "f_slow": "slow.pt", **files}
    return Checkpoint(dirname=str(folder), monitor=None, **files)


def several(folder, epochs, **files):
    checkpoint = checkpoint_of_several(folder, **files)
    torch.manual_seed(0)
    net = plain_net(
        Several,
        criterion=Scaled,
        callbacks=[checkpoint, LoadInitState(checkpoint)],
        max_epochs=epochs,
        batch_size=40,
        iterator_train__shuffle=True,
        aggregator=BlockGeometricMedian(beta=0.5, selection="sample", complement="memory"),
        random_state=0,
    )
    # What is resumed begins anywhere.
    torch.manual_seed(epochs)
    return net


def names_of(folder):
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    """Targets, the files of a training after its third and its fourth epoch, and what it comes to after its sixth."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 4))
    y = (X[:, 0] > X[:, 1]).astype(np.int64)
    found = {}

    class Keeps(Callback):
        def on_epoch_begin(self, net, **kwargs):
            folder = Path(net.callbacks[0].dirname)
            found[len(net.history) - 1] = {path.name: path.read_bytes() for path in folder.iterdir()}

    with torch.random.fork_rng(devices=[]):
        whole = several(tmp_path_factory.mktemp("whole"), 6)
        whole.set_params(callbacks=[*whole.callbacks, Keeps()])
        whole.fit(X, y)
        drawn = torch.get_rng_state()
    return (X, y), found[3], found[4], (whole, drawn)


def assert_goes_on(net, whole):
    whole, drawn = whole
    assert len(net.history) == 6
    for part in PARTS:
        assert_same(*(getattr(each, part).state_dict() for each in (net, whole)))
    assert net.history[:, "train_loss"] == whole.history[:, "train_loss"]
    np.testing.assert_array_equal(net.sample_trust(160), whole.sample_trust(160))
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("settings", [{}, {"f_history": None}], ids=str)
@pytest.mark.parametrize("n_written", range(7))
@pytest.mark.parametrize("first", [False, True])
def test_whatever_was_written_when_it_was_killed_it_goes_on(moments, folder, n_written, settings, first):
    data, before, after, whole = moments
    order = [name for name in ORDER if f"f_{name}" not in settings]
    folder.mkdir()
    for name in order:
        file = f"{name}.{'json' if name == 'history' else 'pt'}"
        content = after[file] if name in order[:n_written] else None if first else before[file]
        if content is not None:
            (folder / file).write_bytes(content)
    is_whole = n_written in (0, *range(len(order), 7))
    has_state = "optimizer" in order[:n_written]
    told = pytest.warns(UserWarning, match="interrupted") if not is_whole else nullcontext()
    with told as warned:
        if first and not has_state:
            assert len(several(folder, 2, **settings).fit(*data).history) == 2
        else:
            assert_goes_on(several(folder, 2 if has_state else 3, **settings).fit(*data), whole)
    if not is_whole:
        message, new, old = str(warned[0].message), order[:n_written], order[n_written:]
        # Those of another moment than the optimizer's file, or those that aren't there.
        odd = old if first or has_state else new
        assert len(warned) == 1
        for name in odd:
            assert str(folder / name) in message
        assert not first or ("nothing of it is loaded" in message) == (not has_state)


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("kept", [*({name} for name in ORDER), set(ORDER) - {"optimizer"}, {"history", "params"}])
def test_what_a_checkpoint_leaves_out_is_in_the_file_of_the_optimizer_or_told_of(moments, folder, kept):
    data, _, after, whole = moments
    folder.mkdir()
    for name in set(ORDER) - kept:
        file = f"{name}.{'json' if name == 'history' else 'pt'}"
        (folder / file).write_bytes(after[file])
    settings = {f"f_{name}": None for name in kept}
    if "optimizer" in kept:
        with pytest.warns(UserWarning, match="no state of a training .* and the optimizer begin anew"):
            several(folder, 2, **settings).fit(*data)
        return
    # By hand as well, whatever the net has been doing.
    net = several(folder / "other", 1).fit(*data)
    net.load_params(checkpoint=checkpoint_of_several(folder, **settings))
    assert_goes_on(net.set_params(max_epochs=2).partial_fit(*data), whole)
    assert_goes_on(several(folder, 2, **settings).fit(*data), whole)


@pytest.mark.usefixtures("forked")
def test_nothing_but_parameters_is_no_training(moments, folder):
    data, _, after, _ = moments
    folder.mkdir()
    (folder / "params.pt").write_bytes(after["params.pt"])
    nothing = {f"f_{name}": None for name in ORDER if name != "params"}
    with pytest.warns(UserWarning, match="samples, the optimizer and the history begin anew"):
        several(folder, 1, **nothing).fit(*data)


@pytest.mark.usefixtures("forked")
def test_names_of_epochs_need_a_history(moments, folder):
    data, *_, whole = moments
    named = {"f_params": "{last_epoch[epoch]}.pt", "f_optimizer": "optimizer_{net.lr}.pt"}
    net = several(folder, 4, **named)
    torch.manual_seed(6)
    net.fit(*data)
    assert {"1", "4", "optimizer_0.01"} <= set(names_of(folder))
    with pytest.raises(ValueError, match=r"must have f_history .*; found f_history=None and f_params='\{last_epoch"):
        several(folder, 2, **named, f_history=None).fit(*data)
    # Those that are known show that there was something.
    (folder / "history.json").rename(folder / "away.json")
    with pytest.warns(UserWarning, match=r"found .*optimizer_0.01.pt, .*, but not .*history.json"):
        assert_goes_on(several(folder, 2, **named).fit(*data), whole)
    shutil.rmtree(folder)
    assert len(several(folder, 1, **named).fit(*data).history) == 1


@pytest.mark.usefixtures("forked")
def test_what_is_loaded_by_hand_must_be_of_one_moment(moments, folder):
    data, before, after, whole = moments
    folder.mkdir()
    files = {}
    for name in ORDER:
        file = f"{name}.{'json' if name == 'history' else 'pt'}"
        (folder / file).write_bytes(after[file])
        (folder / f"old {file}").write_bytes(before[file])
        files[f"f_{name}"] = folder / file
    net = several(folder / "other", 2).initialize()
    # At once or one after the other.
    for name, file in files.items():
        net.load_params(**{name: file})
    assert_goes_on(net.partial_fit(*data), whole)
    for name in [name for name in ORDER if name != "optimizer"]:
        odd = files[f"f_{name}"].with_name(f"old {files[f'f_{name}'].name}")
        net.load_params(**{**files, f"f_{name}": odd})
        part = "module" if name == "params" else name
        with pytest.warns(UserWarning, match=f"must be of one moment .* found another {part} than the optimizer"):
            net.partial_fit(*data)
        net.load_params(checkpoint=checkpoint_of_several(folder), **{f"f_{name}": odd})
        with pytest.warns(UserWarning, match=f"found another {part} than"):
            net.partial_fit(*data)
    # Nothing is to go on from half of it.
    odd, name = folder / "broken.pt", "slow"
    odd.write_bytes(b"broken")
    with pytest.raises(ValueError, match="must be a whole file"):
        net.load_params(**{**files, f"f_{name}": odd})
    assert net._loaded_ is None


class Seals(Callback):
    """Puts something in the place of a file that makes it impossible to write, before the third epoch."""

    def __init__(self, seal):
        self.seal = seal

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            self.seal()


@pytest.mark.parametrize("name", ["params.pt", "optimizer.pt", "history.json"])
@pytest.mark.parametrize("how", ["full", "folder", "gone"])
def test_a_checkpoint_that_cannot_be_written_is_told_of(data, folder, name, how):
    def seal():
        if how == "gone":
            shutil.rmtree(folder)
            return
        (folder / name).unlink()
        if how == "full":
            (folder / name).symlink_to("/dev/full")
        else:
            (folder / name).mkdir()

    with pytest.warns(UserWarning, match="checkpoint is not complete") as told:
        model = estimator(folder, callbacks=[("seals", Seals(seal))]).fit(*data)
    assert any(str(folder / name) in str(warning.message) for warning in told)
    assert model.n_iter_ == 4


def test_saving_by_hand_raises_and_leaves_what_was_there(data, folder, monkeypatch):
    net = estimator(folder).fit(*data).net_
    before = (folder / "params.pt").read_bytes()

    def fails(state, file):
        Path(file).write_bytes(b"half of it")
        raise RuntimeError("no space")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match=r"params\.pt can't be written: no space"):
        net.save_params(f_params=folder / "params.pt")
    assert (folder / "params.pt").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [
        "criterion.pt",
        "history.json",
        "optimizer.pt",
        "params.pt",
    ]
    # An error that was seen isn't told of again.
    net.notify("on_train_end")


def test_a_history_that_is_no_json_is_told_of(data, folder):
    class Records(Callback):
        def on_epoch_begin(self, net, **kwargs):
            net.history.record("odd", torch.zeros(1))

    with pytest.warns(UserWarning, match="not JSON serializable"):
        estimator(folder, epochs=1, callbacks=[("records", Records())]).fit(*data)
    assert torch.load(folder / "optimizer.pt", weights_only=True)[KEY]["history"] is None
    (folder / "history.json").unlink(missing_ok=True)
    checkpoint = Checkpoint(dirname=str(folder), monitor=None, f_history=None)
    with pytest.warns(UserWarning, match="history must hold nothing but what JSON can.* begins anew"):
        model = BlockGMDClassifier(max_epochs=2, batch_size=40, callbacks=[LoadInitState(checkpoint)]).fit(*data)
    assert model.n_iter_ == 2


class Odd(Aggregator):
    """Has a state that isn't read without executing something."""

    def __call__(self, rows, state=None):
        return Mean()(rows)[0], np.zeros(3)


def test_a_state_that_could_not_be_loaded_is_not_saved(data, folder):
    with pytest.warns(UserWarning, match=r"must be made of tensors.*found <class 'numpy.ndarray'>"):
        estimator(folder, epochs=1, aggregator=Odd()).fit(*data)
    assert not (folder / "optimizer.pt").exists()
