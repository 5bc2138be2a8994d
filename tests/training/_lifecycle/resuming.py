"""Trainings to kill and to resume, each in a process of its own: ``python resuming.py {kill,resume} FOLDER``."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, Freezer, LoadInitState, LRScheduler
from skorch.dataset import ValidSplit

from skbgmd import BlockGMDClassifier, BlockGMDRegressor, RobustNeuralNetClassifier
from skbgmd.aggregators import BlockGeometricMedian, Bucketing, CenteredClipping, NearestNeighborMixing
from skbgmd.corruption import BitFlip

EPOCHS, KILLED = 5, 3


class Own(torch.nn.Module):
    """A module with dropout, in a layer that has no rule for one pass if it is not to have one."""

    def __init__(self, known=True):
        super().__init__()
        self.first, self.drop, self.last = torch.nn.Linear(4, 9), torch.nn.Dropout(0.3), torch.nn.Linear(9, 2)
        self.known = known

    def forward(self, X):
        hidden = self.drop(torch.relu(self.first(X.float())))
        return self.last(hidden) if self.known else hidden @ self.last.weight.T + self.last.bias


class Kills(Callback):
    """Kills the process in the middle of an epoch."""

    def on_batch_end(self, net, training=False, **kwargs):
        if training and len(net.history) == KILLED and len(net.history[-1, "batches"]) == 2:
            os.kill(os.getpid(), signal.SIGKILL)


class Shakes(Callback):
    """Draws from NumPy's and Python's global generators, and moves the parameters by it."""

    def on_batch_end(self, net, **kwargs):
        # The generators are the matter here.
        noise = np.random.normal() + random.gauss(0.0, 1.0)
        for group in net.optimizer_.param_groups:
            for parameter in group["params"]:
                parameter.data += 1e-3 * noise


def schedule(policy=torch.optim.lr_scheduler.ExponentialLR, **settings):
    return [("schedule", LRScheduler(policy, **settings))]


def net(callbacks, epochs, **settings):
    defaults = {"criterion": torch.nn.CrossEntropyLoss, "lr": 0.2, "verbose": 0, "batch_size": 40}
    shuffled = {"iterator_train__shuffle": True}
    return RobustNeuralNetClassifier(Own, callbacks=callbacks, max_epochs=epochs, **defaults, **shuffled, **settings)


def classifier(callbacks, epochs, **settings):
    return BlockGMDClassifier(callbacks=callbacks, max_epochs=epochs, **{"batch_size": 40, **settings})


def regressor(callbacks, epochs, **settings):
    return BlockGMDRegressor(callbacks=callbacks, max_epochs=epochs, batch_size=40, **settings)


sampled = BlockGeometricMedian(beta=0.3, selection="uniform", block="coordinate", complement="memory")
# What makes the model, its settings, and callbacks before and after those of the checkpoint.
TRAININGS = {
    "default": (classifier, {}, [], []),
    "regressor": (regressor, {"train_split": ValidSplit(0.2)}, [], []),
    "memory": (classifier, {"beta": 0.1, "memory": "weighted"}, [], []),
    "sampled": (classifier, {"beta": 0.3, "selection": "sample", "block": "coordinate"}, [], []),
    "bucketing": (classifier, {"aggregator": Bucketing(), "group_size": 4}, [], []),
    "estimated share": (
        classifier,
        {"aggregator": NearestNeighborMixing(fraction="auto"), "group_size": 4, "gradient_corruption": BitFlip(0.2)},
        [],
        [],
    ),
    "corrupt": (classifier, {"gradient_corruption": BitFlip(0.2), "pre_aggregation": "nearest"}, [], []),
    "dropout": (classifier, {"module": Own}, [], []),
    "dropout, no one pass": (classifier, {"module": Own, "module__known": False}, [], []),
    "dropout, rows that are mixed": (
        classifier,
        {"module": Own, "aggregator": NearestNeighborMixing(CenteredClipping()), "batch_size": 12},
        [],
        [],
    ),
    "NumPy numbers": (classifier, {"lr": np.float64(0.1), "optimizer__weight_decay": np.float32(0.01)}, [], []),
    "warm restarts": (classifier, {}, schedule("WarmRestartLR", base_period=3, max_lr=0.1), []),
    "frozen": (classifier, {"module": Own}, [], [("freezer", Freezer("first.*"))]),
    "clients": (classifier, {"module": Own, "local_steps": 2, "batch_size": 8}, [], []),
    "schedule after": (classifier, {}, [], schedule(gamma=0.5)),
    "schedule before": (classifier, {}, schedule(gamma=0.5), []),
    "schedule of batches": (
        classifier,
        {},
        [],
        schedule(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=60, step_every="batch"),
    ),
    "plateau": (classifier, {}, schedule("ReduceLROnPlateau", monitor="train_loss", patience=0, threshold=0.5), []),
    "early stopping": (
        classifier,
        {},
        [],
        [("stop", EarlyStopping("train_loss", patience=2, threshold=0.9, load_best=True))],
    ),
    "held out": (classifier, {"early_stopping": True, "lr": 0.1}, [], []),
    "held out, regressor": (regressor, {"early_stopping": True, "lr": 0.1, "validation_fraction": 0.3}, [], []),
    "held out, clients": (classifier, {"early_stopping": True, "validation_fraction": 0.4, "batch_size": 8}, [], []),
    "held out, over": (classifier, {"early_stopping": True, "n_iter_no_change": 2, "tol": 9.0}, [], []),
    "loss, over": (classifier, {"early_stopping": "loss", "n_iter_no_change": 3, "tol": 9.0}, [], []),
    "best epoch": (classifier, {"train_split": ValidSplit(5), "monitor": "valid_loss_best", "lr": 0.1}, [], []),
    "net": (net, {}, [], []),
    "net, sampled": (net, {"aggregator": sampled, "gradient_corruption": BitFlip(0.2)}, [], []),
    "net, split at random": (net, {"train_split": ValidSplit(0.2), "optimizer__momentum": 0.9}, [], []),
    "net, a generator of its own": (net, {"iterator_train__generator": torch.Generator}, [], []),
    "net, global generators": (net, {}, [("shakes", Shakes())], []),
}


def train(name, folder, *, epochs=EPOCHS, kills=False, seed=0):
    """What a training comes to, all of it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 4)).astype(np.float32)
    y = (X[:, 0] > X[:, 1]).astype(np.int64)
    # Those of a new process are anywhere.
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    make, settings, before, after = TRAININGS[name]
    settings = {key: value() if value is torch.Generator else value for key, value in settings.items()}
    checkpoint = Checkpoint(monitor=settings.pop("monitor", None), dirname=str(Path(folder) / name))
    callbacks = [*before, ("checkpoint", checkpoint), ("load", LoadInitState(checkpoint)), *after]
    callbacks += [("kills", Kills())] if kills else []
    # A seed of its own in each process: none of it may matter to what is resumed.
    model = make(callbacks, epochs, random_state=seed, **settings)
    model.fit(X, y, **({"groups": np.arange(120) % 5} if name.endswith("clients") else {}))
    trained = getattr(model, "net_", model)
    times = {"dur", "aggregation_time"}
    return {
        "parameters": dict(trained.module_.state_dict()),
        "optimizer": trained.optimizer_.state_dict(),
        "rule": trained.aggregator_.state_dict(),
        "trust": torch.from_numpy(trained.sample_trust(120)),
        "history": [{key: value for key, value in row.items() if key not in times} for row in trained.history],
        "epochs": len(trained.history),
    }


def killed(name, folder):
    """Train in a process that dies of it, and leave a checkpoint."""
    child = os.fork()
    if child == 0:
        train(name, folder, kills=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, name


def main(mode, folder):
    torch.set_num_threads(1)
    found = {}
    for name, (make, *_) in TRAININGS.items():
        if mode == "kill":
            found[name] = train(name, Path(folder) / "whole")
            killed(name, Path(folder) / "killed")
        else:
            # To skorch, max_epochs are epochs more.
            epochs = EPOCHS - KILLED + 1 if make is net else EPOCHS
            found[name] = train(name, Path(folder) / "killed", epochs=epochs, seed=1)
    torch.save(found, Path(folder) / f"{mode}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
