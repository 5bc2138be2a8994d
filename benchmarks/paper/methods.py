"""The rules that are compared: the paper's, its baselines and ours, as named aggregators."""

from __future__ import annotations

from skbgmd.aggregators import (
    Aggregator,
    BlockGeometricMedian,
    CoordinatewiseMedian,
    GeometricMedian,
    Krum,
    Mean,
    NormFilter,
    SpectralFilter,
)

#: Share of corrupt rows that the filters are told to reckon with: the most there is in any row of the tables.
ASSUMED = 0.4


def methods(seed: int = 0, beta: float = 0.1) -> dict[str, Aggregator]:
    """All rules by name. "BGMD" is this library's default, the two before it are other configurations of its class."""
    return {
        "SGD": Mean(),
        "CMD": CoordinatewiseMedian(),
        "GMD": GeometricMedian(),
        "BGMD, paper": BlockGeometricMedian.published(beta, random_state=seed),
        # Of the published code: the largest columns instead of sampled ones.
        "BGMD, authors' code": BlockGeometricMedian(
            beta, complement="memory", memory_rule="mean", clip_scores=False, random_state=seed
        ),
        "BGMD": BlockGeometricMedian(beta, GeometricMedian(rejection=10.0)),
        "BGMD, no memory": BlockGeometricMedian(
            beta, selection="sample", complement="zero", clip_scores=False, random_state=seed
        ),
        "norm filter": NormFilter(ASSUMED),
        "trimmed norms": NormFilter(ASSUMED, both_tails=True),
        "Krum": Krum(ASSUMED),
        "spectral filter": SpectralFilter(ASSUMED),
    }


#: The columns of the paper's table 2, with its rule in three configurations.
PAPER = ("SGD", "CMD", "GMD", "BGMD, paper", "BGMD, authors' code", "BGMD")
#: What it discusses besides.
FILTERS = ("norm filter", "trimmed norms", "Krum", "spectral filter")
ALL = (*PAPER, *FILTERS)
#: Plain training: SGD with the whole batch as one group.
PLAIN = "SGD, one batch"
