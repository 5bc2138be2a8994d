"""One training of one case: a row of the results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.dataset import Dataset

from paper.cases import Corruption, Protocol, Run
from paper.data import Images, load
from paper.methods import PLAIN, methods
from paper.networks import network
from skbgmd import RobustNeuralNetClassifier
from skbgmd._utils.slices import even_slices
from skbgmd.aggregators import NonFiniteRowsError
from skbgmd.corruption import AdditiveNoise, BitFlip
from skbgmd.training._data.loader import Batch

#: Standard deviation of the paper's additive noise, and the share of the pixels that impulse noise sets.
NOISE, IMPULSE = 10.0, 0.9
#: Fashion-MNIST's bag, towards which the backdoor biases.
TARGET = 8


class CorruptGroups(RobustNeuralNetClassifier):
    """Corrupts features or labels of some groups of each batch, all of their samples, as the published code does.

    Were the samples of all groups corrupt in the same share, no group would be sound, and no rule could help.
    """

    def __init__(self, *args: Any, corruption: Corruption | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.corruption = corruption

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        if self.corruption is not None and self.corruption.source in ("feature", "label"):
            batch = self._corrupt(batch)
        step: dict[str, Any] = super().train_step_single(batch, **fit_params)
        return step

    def _corrupt(self, batch: Batch) -> Batch:
        X, y = batch[0].clone(), batch[1].clone()
        slices = batch.slices or even_slices(len(y), -(-len(y) // self.group_size))
        rng = self.aggregator_.random_state()
        for number in rng.permutation(len(slices))[: int(self.corruption.percent * len(slices) / 100)]:
            part = slices[number]
            if self.corruption.source == "label":
                y[part] = TARGET
            elif self.corruption.kind == "additive":
                X[part] += torch.as_tensor(NOISE * rng.standard_normal(X[part].shape), dtype=X.dtype)
            else:
                hit = torch.as_tensor(rng.rand(*X[part].shape) < IMPULSE)
                X[part][hit] = torch.as_tensor(rng.randint(0, 2, size=int(hit.sum())), dtype=X.dtype)
        return Batch(X, y, batch.positions, batch.weight, slices)


#: Test samples that the accuracy after each epoch is of; the last one is of all.
SCORED = 1000


class Curve(Callback):
    """Accuracy after each epoch against the seconds of training, the scoring left out."""

    def __init__(self, X: Any, y: Any) -> None:
        self.X, self.y = X, y

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.seconds, self.points = 0.0, []

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.seconds += time.perf_counter() - self._start
        some = slice(SCORED if len(net.history) < net.max_epochs else None)
        accuracy = 100.0 * float((net.predict(self.X[some]) == self.y[some]).mean())
        self.points.append((round(self.seconds, 2), round(accuracy, 2)))


def train(run: Run, protocol: Protocol, *, folder: Path | None, device: str) -> dict[str, Any]:
    """Train once; no accuracy where the gradients overflow in half of the groups or more."""
    setting = run.setting
    images = load(setting, folder=folder, validate=run.validate, n_validation=protocol.n_validation, seed=run.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        curve = Curve(images.X_test, images.y_test)
        net = _net(run, curve, device)
        try:
            dataset = Dataset(images.X, images.y)
            dataset.sample_weight, dataset.clients = None, images.clients
            net.fit(dataset, images.y)
            finite = True
        except NonFiniteRowsError:
            finite = False
    return _outcome(run, images, net, curve, finite)


def _net(run: Run, curve: Curve, device: str) -> CorruptGroups:
    setting, share = run.setting, run.corruption.percent / 100.0
    attack = None
    if run.corruption.source == "gradient":
        attack = BitFlip(share) if run.corruption.kind == "bit flip" else AdditiveNoise(share, std=NOISE)
    return CorruptGroups(
        network(setting.network, setting.width),
        corruption=run.corruption,
        criterion=torch.nn.CrossEntropyLoss,
        aggregator=methods(run.seed, run.beta)["SGD" if run.method == PLAIN else run.method],
        group_size=None if run.method == PLAIN else setting.samples,
        local_steps=setting.local_steps,
        gradient_corruption=attack,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        lr=run.lr,
        max_epochs=setting.epochs,
        # From each client, or from all rows together.
        batch_size=setting.samples * (setting.local_steps if setting.heterogeneous else setting.rows),
        iterator_train__shuffle=True,
        iterator_train__stratify=None,
        iterator_valid__batch_size=1024,
        train_split=None,
        callbacks=[("curve", curve)],
        random_state=run.seed,
        device=device,
        verbose=0,
    )


def _outcome(run: Run, images: Images, net: CorruptGroups, curve: Curve, finite: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "n_train": len(images.X),
        "parameters": sum(parameter.numel() for parameter in net.module_.parameters()),
        "steps": net.aggregator_.n_batches,
        "curve": " ".join(f"{seconds}:{accuracy}" for seconds, accuracy in curve.points),
    }
    if not finite:
        return {**row, "remark": "diverged"}
    times = np.array([epoch.get("aggregation_time", np.nan) for epoch in net.history])
    return {
        **row,
        "accuracy": curve.points[-1][1],
        "seconds": curve.seconds,
        "aggregation ms": round(1e3 * float(times.sum()) / max(1, net.aggregator_.n_batches), 2),
    }
