"""Names of the types in skops files of fitted estimators, for those who review such files."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from skorch.callbacks import EpochScoring, EpochTimer, PassthroughScoring
from skorch.dataset import Dataset, ValidSplit
from skorch.history import History
from skorch.setter import optimizer_setter
from skorch.utils import to_numpy

import skbgmd.aggregators as aggregators
from skbgmd.aggregators.base import AggregatorState
from skbgmd.training._data.encoding import EncodedSplit
from skbgmd.training._data.loader import ArrayLoader
from skbgmd.training._estimator.multilabel import RobustMultilabelNet, indicator_matrix, signs_matrix
from skbgmd.training._lifecycle.compiled_pickle import compiled_again
from skbgmd.training._lifecycle.stopping import (
    EndOfTraining,
    LabelStopping,
    LikelihoodStopping,
    LossStopping,
    ResidualStopping,
)
from skbgmd.training._step.history import StepRecord
from skbgmd.training._step.stateful import StatefulAggregator
from skbgmd.training._step.trust import SampleRecord, SampleTrust
from skbgmd.training._strength.evidence import Evidence
from skbgmd.training._strength.held_out_labels import HeldOutLabels
from skbgmd.training.classifier import BlockGMDClassifier, _codes
from skbgmd.training.nets import RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor, _Log
from skbgmd.training.networks import MLP, LeNet
from skbgmd.training.regressor import BlockGMDRegressor, _Part, _Provisional, _scaled
from skbgmd.training.trimmed_loss import TrimmedLoss

#: What comes with any net. Loaded, these hold what they are given; called, they do no more than make such a thing.
_PARTS = (
    *(dict, OrderedDict, defaultdict, partial, print),
    *(EpochScoring, EpochTimer, PassthroughScoring, Dataset, ValidSplit, History, optimizer_setter, to_numpy),
    *(torch._utils._rebuild_tensor_v2, torch._utils._rebuild_parameter),
    *(
        ArrayLoader,
        EncodedSplit,
        Evidence,
        HeldOutLabels,
        SampleRecord,
        SampleTrust,
        StatefulAggregator,
        StepRecord,
        TrimmedLoss,
    ),
    *(EndOfTraining, LossStopping, LabelStopping, LikelihoodStopping, ResidualStopping),
    *(RobustMultilabelNet, indicator_matrix, signs_matrix, compiled_again),
    *(BlockGMDClassifier, _codes, BlockGMDRegressor, _scaled, _Part, _Provisional),
    *(RobustNeuralNet, RobustNeuralNetClassifier, RobustNeuralNetRegressor, _Log, MLP, LeNet),
)
#: What skops knows by another name than its own, or this version of skorch or NumPy has elsewhere.
_NAMES = (
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray._reconstruct",
    # Parameters of a grid are numbers of NumPy's.
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "skbgmd.training._lifecycle.stopping.LabelStopping.hold_out",
    "skbgmd.training._lifecycle.stopping.LikelihoodStopping.hold_out",
    "skbgmd.training._lifecycle.stopping.ResidualStopping.hold_out",
    "skbgmd.training._estimator.wrapping.RobustNeuralNetBinaryClassifier",
    "skorch.utils._indexing_ndframe",
    "skorch.utils._indexing_other",
    "torch.sigmoid",
)


def _of_kind(room: Any, kind: type) -> Iterator[type]:
    return (thing for thing in vars(room).values() if isinstance(thing, type) and issubclass(thing, kind))


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__name__}"


#: Types, by name, that fitted estimators of this library consist of and that run nothing of a file's own when they are
#: loaded: its estimators, rules and their states, the layers, losses and optimizers of torch, and parts of skorch.
SKOPS_TRUSTED: tuple[str, ...] = tuple(
    sorted(
        {
            *map(_name, _PARTS),
            *map(_name, _of_kind(torch.nn, torch.nn.Module)),
            *map(_name, _of_kind(torch.optim, torch.optim.Optimizer)),
            *map(_name, _of_kind(aggregators, aggregators.Aggregator)),
            *(name for name in AggregatorState._kinds if name.startswith("skbgmd.")),
            *_NAMES,
        }
    )
)

__all__ = ["SKOPS_TRUSTED"]
