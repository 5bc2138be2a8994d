"""Gradient aggregation rules: robust to Byzantine workers and corrupt samples, from n vectors to one.

Each is a small class of hyperparameters, called as ``aggregate, state = aggregator(rows, state)``.
"""

from __future__ import annotations

from collections.abc import Callable

from skbgmd._utils.checks import check_choice
from skbgmd.aggregators.adaptive_clipping import AdaptiveClipping, clipped_spectral_filter
from skbgmd.aggregators.base import (
    Aggregate,
    Aggregator,
    AggregatorState,
    Judgement,
    LocationRule,
    NonFiniteRowsError,
    RowWeighting,
)
from skbgmd.aggregators.block_geometric_median import BlockGeometricMedian, BlockState
from skbgmd.aggregators.bucketing import Bucketing
from skbgmd.aggregators.centered_clipping import CenteredClipping, CenteredClippingState
from skbgmd.aggregators.coordinatewise import Coordinatewise
from skbgmd.aggregators.coordinatewise_median import CoordinatewiseMedian
from skbgmd.aggregators.corrupt_share import CorruptShare, estimate_corrupt_share
from skbgmd.aggregators.geometric_median import GeometricMedian
from skbgmd.aggregators.huber_mean import HuberMean
from skbgmd.aggregators.krum import Krum
from skbgmd.aggregators.majority_vote import MajorityVote
from skbgmd.aggregators.mean import Mean
from skbgmd.aggregators.nearest_neighbor_mixing import NearestNeighborMixing
from skbgmd.aggregators.noise_to_signal import group_size_needed, indistinguishable_distance
from skbgmd.aggregators.norm_filter import NormFilter
from skbgmd.aggregators.pre_aggregation import PreAggregation, PreAggregationState
from skbgmd.aggregators.spectral_filter import SpectralFilter
from skbgmd.aggregators.trimmed_mean import TrimmedMean
from skbgmd.aggregators.worker_memory import WorkerMemory
from skbgmd.aggregators.worker_momentum import WorkerMomentum
from skbgmd.aggregators.zeno import Zeno, ZenoState

#: Callables that make an aggregator with its default hyperparameters, by name.
AGGREGATORS: dict[str, Callable[[], Aggregator]] = {
    "mean": Mean,
    "coordinate_median": CoordinatewiseMedian,
    "trimmed_mean": TrimmedMean,
    "norm_filter": NormFilter,
    "krum": Krum,
    "spectral_filter": SpectralFilter,
    "clipped_spectral_filter": clipped_spectral_filter,
    "huber_mean": HuberMean,
    "centered_clipping": CenteredClipping,
    "geometric_median": GeometricMedian,
    "block_geometric_median": BlockGeometricMedian,
    "worker_memory": WorkerMemory,
    "bgmd_paper": BlockGeometricMedian.published,
}


def get_aggregator(aggregator: str | Aggregator) -> Aggregator:
    """Look up an aggregator by its name.

    Parameters
    ----------
    aggregator : str or Aggregator
        A key of :data:`AGGREGATORS`, for that aggregator with its default hyperparameters. An aggregator is returned as
        it is.

    Returns
    -------
    Aggregator

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get_aggregator("krum")
    Krum()
    """
    if isinstance(aggregator, Aggregator):
        return aggregator
    return AGGREGATORS[check_choice(aggregator, "aggregator", tuple(AGGREGATORS))]()


__all__ = [
    "AGGREGATORS",
    "AdaptiveClipping",
    "Aggregate",
    "Aggregator",
    "AggregatorState",
    "BlockGeometricMedian",
    "BlockState",
    "Bucketing",
    "CenteredClipping",
    "CenteredClippingState",
    "Coordinatewise",
    "CoordinatewiseMedian",
    "CorruptShare",
    "GeometricMedian",
    "HuberMean",
    "Judgement",
    "Krum",
    "LocationRule",
    "MajorityVote",
    "Mean",
    "NearestNeighborMixing",
    "NonFiniteRowsError",
    "NormFilter",
    "PreAggregation",
    "PreAggregationState",
    "RowWeighting",
    "SpectralFilter",
    "TrimmedMean",
    "WorkerMemory",
    "WorkerMomentum",
    "Zeno",
    "ZenoState",
    "estimate_corrupt_share",
    "get_aggregator",
    "group_size_needed",
    "indistinguishable_distance",
]
