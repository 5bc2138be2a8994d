"""Estimators with checkpoints, and what is the same in two trainings."""

from __future__ import annotations

import numpy as np
import torch
from skorch.callbacks import Checkpoint, LoadInitState

from skbgmd import BlockGMDClassifier


def assert_same(ours, theirs):
    if isinstance(ours, torch.Tensor):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    elif isinstance(ours, dict):
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            assert_same(value, theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        assert ours == theirs


def estimator(folder, *, kind=Checkpoint, epochs=4, callbacks=(), **settings):
    checkpoint = kind(dirname=str(folder), **({"monitor": None} if kind is Checkpoint else {}))
    callbacks = [("checkpoint", checkpoint), ("load", LoadInitState(checkpoint)), *callbacks]
    settings = {"batch_size": 40, "random_state": 0, **settings}
    return BlockGMDClassifier(max_epochs=epochs, callbacks=callbacks, **settings)


def assert_same_training(ours, theirs):
    assert_same(dict(ours.module_.state_dict()), dict(theirs.module_.state_dict()))
    assert_same(ours.net_.optimizer_.state_dict(), theirs.net_.optimizer_.state_dict())
    assert ours.loss_curve_ == theirs.loss_curve_
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_array_equal(ours.sample_trust_, theirs.sample_trust_)


def plain_net(kind, **settings):
    module = torch.nn.Linear(4, 2).double()
    settings = {"criterion": torch.nn.CrossEntropyLoss, "train_split": None, "max_epochs": 2, "verbose": 0, **settings}
    return kind(module, **settings)
