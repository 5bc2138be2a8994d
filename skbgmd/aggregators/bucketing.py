"""Bucketing: rows are averaged in random buckets."""

from __future__ import annotations

import warnings

import numpy as np

from skbgmd._utils.checks import check_integer
from skbgmd._utils.random import step_seed
from skbgmd._utils.typing import FloatArray
from skbgmd.aggregators.base import Aggregator
from skbgmd.aggregators.pre_aggregation import PreAggregation
from skbgmd.rows import Rows


class Bucketing(PreAggregation):
    """Bucketing: average the rows in random buckets, then aggregate the buckets. Karimireddy et al. (2022).

    It brings rows from different distributions nearer together. The price: a corrupt row spoils its whole bucket.

    Put it behind a rule that remembers workers, as in ``WorkerMemory(Bucketing())``, not before it: its buckets are
    of other workers in each call.

    Parameters
    ----------
    aggregator : Aggregator, default=None
        Rule that aggregates the buckets; None: :class:`GeometricMedian`.
    bucket_size : int, default=2
        Number of rows in a bucket; the last bucket may hold fewer.
    random_state : int or None, default=None
        Seed; each call draws other buckets. None: another seed in each call.
    """

    def __init__(
        self, aggregator: Aggregator | None = None, bucket_size: int = 2, random_state: int | None = None
    ) -> None:
        self.aggregator, self.bucket_size, self.random_state = aggregator, bucket_size, random_state

    def _validate(self) -> None:
        super()._validate()
        check_integer(self.bucket_size, "bucket_size")

    def _average(self, rows: Rows, step: int) -> tuple[FloatArray, FloatArray]:
        n = rows.n_rows
        if step == 0 and (found := _that_remembers(self.aggregator)) is not None:
            warnings.warn(
                f"aggregator must not remember workers, as a bucket is of others in each call; found "
                f"{type(found).__name__} in Bucketing. Put Bucketing in it.",
                UserWarning,
                stacklevel=4,
            )
        order = np.random.default_rng(step_seed(self.random_state, step)).permutation(n)
        bucket = np.empty(n, dtype=np.intp)
        bucket[order] = np.arange(n) // self.bucket_size
        mixing = np.zeros((int(bucket.max()) + 1, n))
        mixing[bucket, np.arange(n)] = rows.weights
        weights = mixing.sum(axis=1)
        return mixing / weights[:, None], weights


def _that_remembers(rule: Aggregator | None) -> Aggregator | None:
    """A rule that remembers workers, or the first such within it; None where there is none."""
    while not (rule is None or rule.remembers_workers):
        rule = getattr(rule, "aggregator", None)
    return rule
