"""The rule that trainings use where none is given: the estimators' and the nets' are the same."""

from __future__ import annotations

from skbgmd.aggregators import BlockGeometricMedian

#: What :func:`default_rule` is asked for by.
DEFAULT = "block_geometric_median"
#: Proved accuracy of a step's median. Gradients are noise to far more than this, and no digit more makes them better.
TOL = 1e-4
#: Median distances within which rows of single samples count in full; for classes, and for numbers.
HUBER_OF_CLASSES, HUBER_OF_NUMBERS = 2.0, None
#: Median distances beyond which rows are left out.
REJECTION = 10.0


def default_rule(
    *,
    huber: float | None,
    of_samples: bool,
    beta: float = 1.0,
    selection: str = "top",
    block: str = "unit",
    memory: str | None = None,
    rejection: float | None = REJECTION,
    random_state: int | None = None,
) -> BlockGeometricMedian:
    """The geometric median of training steps.

    Parameters
    ----------
    huber : float or None
        As in :class:`skbgmd.aggregators.BlockGeometricMedian`, where rows are of single samples; means of groups and
        of clients are much more alike.
    of_samples : bool
        Whether rows are of single samples.
    beta, selection, block, memory, rejection
        As in :class:`skbgmd.BlockGMDClassifier`.
    random_state : int or None, default=None
        Seed of what ``selection`` draws.

    Returns
    -------
    BlockGeometricMedian
    """
    return BlockGeometricMedian(
        beta=beta,
        selection=selection,
        block=block,
        complement="weighted" if memory is None else "memory",
        memory_rule=memory or "weighted",
        huber=huber if of_samples else None,
        rejection=rejection,
        ties="huber" if of_samples else "median",
        tol=TOL,
        random_state=random_state,
    )
