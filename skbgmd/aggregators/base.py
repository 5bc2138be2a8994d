"""Base classes of aggregators: hyperparameters, and a call that turns rows into one vector."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from skbgmd._utils import limits
from skbgmd._utils.checks import check_number
from skbgmd._utils.doc_link import DocumentationLink
from skbgmd._utils.shares import share_of
from skbgmd._utils.typing import BoolArray, FloatArray
from skbgmd.rows import DenseRows, Rows
from skbgmd.rows.means import means

S = TypeVar("S")


@dataclass(frozen=True)
class Aggregate:
    """Aggregate of the rows, with the weight of each row in it.

    Attributes
    ----------
    vector : tensor of shape (d,)
        The aggregate, on the rows' device.
    weights : ndarray of shape (n,), or None
        Weight of each row, non-negative and adding up to one; None if the rule reduced the columns one by one.
    block : tensor of shape (k,), int64, or None
        The columns that the rule looked at; None: all.
    mass : float, or None
        Share of the rows' summed squares that lies in the block, with each row clipped as for the scores.
    record : mapping
        Numbers, or lists of them, by name. A training records their means over an epoch in its history.
    """

    vector: torch.Tensor
    weights: FloatArray | None = None
    block: torch.Tensor | None = None
    mass: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


class AggregatorState:
    """Base class of states that an aggregator carries from one call to the next; inherit as a frozen dataclass.

    The fields must be tensors, numbers, text, None, tuples of these, or other states. A state can then be saved and
    loaded as plain containers of these, which ``torch.load`` reads without executing anything.
    """

    _kinds: ClassVar[dict[str, type[AggregatorState]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        AggregatorState._kinds[f"{cls.__module__}.{cls.__qualname__}"] = cls
        # Nothing but values of fields is loaded, so that torch.load takes a state beside a network's state_dict.
        torch.serialization.add_safe_globals([cls])


def pack_state(state: Any) -> Any:
    """Convert a state to plain containers; anything but an :class:`AggregatorState` is left as it is."""
    if not isinstance(state, AggregatorState):
        return state
    kind = f"{type(state).__module__}.{type(state).__qualname__}"
    values = {name: pack_state(value) for name, value in vars(state).items()}
    return {"kind": kind, "values": values}


def unpack_state(packed: Any) -> Any:
    """Convert plain containers back to the state that :func:`pack_state` was given.

    Raises
    ------
    ValueError
        A kind of state that nothing imported defines, or other fields than it has.
    """
    if not (isinstance(packed, dict) and set(packed) == {"kind", "values"}):
        return packed
    kinds = AggregatorState._kinds
    if packed["kind"] not in kinds:
        raise ValueError(f"The kind of an aggregator's state must be known; found {packed['kind']!r}.")
    kind, values = kinds[packed["kind"]], packed["values"]
    if is_dataclass(kind) and (unknown := sorted(set(values) - {each.name for each in fields(kind)})):
        known = ", ".join(each.name for each in fields(kind))
        raise ValueError(f"A {kind.__name__} must have no other fields than {known}; found {', '.join(unknown)}.")
    return kind(**{name: unpack_state(value) for name, value in values.items()})


class Aggregator(DocumentationLink, BaseEstimator, ABC):
    """Base class of gradient aggregation rules, which turn rows into one vector.

    An aggregator holds only hyperparameters: ``get_params``, ``set_params`` and ``sklearn.base.clone`` work. A call
    changes nothing in it. Anything that must last from one call to the next goes in and comes out as ``state``.
    """

    #: True for a rule whose state is about the workers that rows are of.
    remembers_workers: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        """Aggregate rows.

        Parameters
        ----------
        rows : Rows
            The rows and their weights. Rows that hold NaN or inf get weight zero.
        state : object, default=None
            State that the last call returned; None in the first call.

        Returns
        -------
        aggregate : Aggregate
            The aggregate and the weights of the rows.
        state : object
            State to pass to the next call. It shares no memory with the aggregate, which may be changed in place.

        Raises
        ------
        TypeError
            If an array or a tensor is given in place of rows, or if the state belongs to another rule.
        ValueError
            If a hyperparameter is out of its range, or if there is no row or no column.
        NonFiniteRowsError
            If half of the rows or more aren't finite.
        """

    def looked_at(self, rows: Rows, state: Any = None) -> torch.Tensor | None:
        """Columns (k,) that a call would look at, ascending, or None for all; rules that select them do no more."""
        aggregate, _ = self(rows, state)
        return aggregate.block

    def in_process(self, state: Any) -> tuple[Aggregator, Any]:
        """Rule and state by which rows of this process are judged without the others: of one process, its own."""
        return self, state

    def check_parameters(self) -> None:
        """Raise an error for a hyperparameter out of its range, as a call does; by default, by a call on some rows."""
        self(DenseRows(torch.arange(12.0, device="cpu").view(3, 4)))


def aggregated(rule: Aggregator, rows: Rows, state: Any) -> tuple[Aggregate, Any]:
    """Call a rule, which may be a user's own, and check what it returns.

    Raises
    ------
    TypeError
        No aggregate and state, or an aggregate whose vector or weights aren't those of such rows.
    """
    found = rule(rows, state)
    name = type(rule).__name__
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Aggregate)):
        raise TypeError(f"{name} must return an Aggregate and a state, in a tuple; found {_kind(found)}.")
    vector, weights = found[0].vector, found[0].weights
    if not (isinstance(vector, torch.Tensor) and vector.shape == (rows.n_held,)):
        raise TypeError(
            f"vector that {name} returns must be a tensor of shape ({rows.n_held},); found {_kind(vector)}."
        )
    if not (weights is None or (isinstance(weights, np.ndarray) and weights.shape == (rows.n_rows,))):
        raise TypeError(
            f"weights that {name} returns must be an array of shape ({rows.n_rows},) or None; found {_kind(weights)}."
        )
    return found


def _kind(value: Any) -> str:
    """Say of what type a value is, with its shape if it has one, or with the types of what a tuple holds."""
    if isinstance(value, tuple):
        return f"({', '.join(type(each).__name__ for each in value)})"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")


def check_rows(rows: Any) -> None:
    """Raise a TypeError for anything but rows, such as an array, which :class:`DenseRows` takes.

    Raises
    ------
    ValueError
        No row, no column, or no row of any weight.
    """
    if not hasattr(rows, "n_rows"):
        raise TypeError(f"rows must be Rows, such as DenseRows(torch.tensor(X)); found {type(rows).__name__}.")
    if not (rows.n_rows and rows.n_columns):
        raise ValueError(f"rows must hold a row and a column at least; found {rows.n_rows} x {rows.n_columns}.")
    if not rows.weights.any():
        raise ValueError("weights of the rows must have a positive entry; found only zeros.")


def state_of(rule: Aggregator, state: Any, kind: type[S]) -> S | None:
    """Check a state that a rule is handed: of its own kind, or None.

    Raises
    ------
    TypeError
        The state of another rule.
    """
    if state is None or isinstance(state, kind):
        return state
    raise TypeError(
        f"state must be what {type(rule).__name__} returned, of type {kind.__name__}, or None; found "
        f"{type(state).__name__}."
    )


def refuse_state(rule: Aggregator, state: Any) -> None:
    """Raise a TypeError where a rule without state is handed one."""
    if state is not None:
        raise TypeError(f"state must be None, which {type(rule).__name__} returned; found {type(state).__name__}.")


def worker_ids(rows: Rows) -> tuple[Any, ...]:
    """Ids (n,) of the workers that rows are of: their places, where rows have none; see :func:`checked_ids`."""
    return tuple(range(rows.n_rows)) if rows.ids is None else checked_ids(rows.ids, rows.n_rows)


def checked_ids(ids: Any, n: int) -> tuple[Any, ...]:
    """Check the ids of the workers of n rows.

    Those of arrays and tensors become Python's numbers: a tensor equals no other one as a key, and a state with NumPy's
    scalars isn't loaded without executing code.

    Raises
    ------
    TypeError
        Ids that aren't numbers or strings, or that have no order.
    ValueError
        Ids that aren't one for each row, each of them once.
    """
    plain = _plain(ids)
    n_known = len(set(plain))
    if not n_known == len(plain) == n:
        raise ValueError(
            f"ids must be one for each row, each of them once; found {len(plain)}, {n_known} of them different, for "
            f"{n} rows."
        )
    return plain


def _plain(ids: Any) -> tuple[Any, ...]:
    """Convert ids (n,) to Python's own numbers and strings."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(ids, Sequence) or isinstance(ids, str):
        raise TypeError(f"ids must be a sequence of numbers or strings, such as a tuple; found {type(ids).__name__}.")
    if not set(map(type, ids)) <= {int, str}:
        # NumPy's scalars, and the elements of a tensor.
        ids = [worker.tolist() if hasattr(worker, "tolist") else worker for worker in ids]
        for worker in ids:
            if not isinstance(worker, (int, float, str)) or worker != worker:
                raise TypeError(f"ids must be numbers or strings; found {worker!r}.")
    return tuple(ids)


class Judgement(NamedTuple):
    """Weights that a rule gives rows, by their columns on a block or by all columns.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        Weights of the rows, non-negative and adding up to one.
    state : object
        State for the next call.
    clip : float, or None
        Limit, in typical lengths, to which off-block parts are clipped; None: the block's own limit.
    least : float
        Lower bound for the typical length off a block.
    off_block : ndarray of shape (n,), or None
        Weights of the rows off a block. None: ``weights``, capped so that no row counts for more there than a typical
        one.
    record : mapping
        As in :class:`Aggregate`.
    """

    weights: FloatArray
    state: Any = None
    clip: float | None = None
    least: float = 0.0
    off_block: FloatArray | None = None
    record: Mapping[str, Any] = MappingProxyType({})


class LocationRule(Aggregator):
    """Base class of rules that are a weighted mean of the rows, and can also weigh rows by a block of their columns."""

    def __call__(self, rows: Rows, state: Any = None) -> tuple[Aggregate, Any]:
        judged = self._judge_usable(rows, state)
        return Aggregate(means(rows, judged.weights), judged.weights, record=dict(judged.record)), judged.state

    def weights(self, rows: Rows) -> FloatArray:
        """Weights of the rows, non-negative and adding up to one; float64 (n,)."""
        return self._judge_usable(rows, None).weights

    @abstractmethod
    def judge(self, rows: Rows, state: Any = None) -> Judgement:
        """Weigh rows that are all finite and of positive weight, and give the state for the next call."""

    def _judge_usable(self, rows: Rows, state: Any) -> Judgement:
        self._validate()
        check_rows(rows)
        usable = usable_rows(rows, self._finite(rows))
        if len(usable) == rows.n_rows:
            return self.judge(rows, state)
        judged = self.judge(rows.subset(usable), state)
        weights = np.zeros(rows.n_rows)
        weights[usable] = judged.weights
        return judged._replace(weights=weights, off_block=None)

    def _finite(self, rows: Rows) -> BoolArray:
        """Mask of the finite rows, at no extra pass."""
        return finite_rows(rows)

    def _validate(self) -> None:
        """Check the hyperparameters."""


class RowWeighting(LocationRule):
    """Base class of rules that are a weighted mean of the rows and have no state."""

    def judge(self, rows: Rows, state: Any = None) -> Judgement:
        refuse_state(self, state)
        return Judgement(self._weigh(rows))

    @abstractmethod
    def _weigh(self, rows: Rows) -> FloatArray:
        """Weights of rows that are all finite and of positive weight."""


def finite_rows(rows: Rows, *, tol: float = 0.0) -> BoolArray:
    """Mask of the finite rows, by the Gram matrix that a rule is about to take with that tolerance, if it takes any."""
    return rows.finite if rows.n_rows > limits.GRAM_ROWS else rows.gram(tol=tol).finite


class NonFiniteRowsError(ValueError):
    """Error: rows with NaN or inf have half of the weight or more, which means that the training has diverged."""


def usable_rows(rows: Rows, finite: BoolArray) -> NDArray[np.intp]:
    """Indices of the rows that are finite and of positive weight.

    Raises
    ------
    NonFiniteRowsError
        Half of the weight or more is on rows that aren't finite, beyond the breakdown point.
    """
    if finite.all() and rows.weights.min() > 0.0:
        return np.arange(rows.n_rows)
    total = float(rows.weights.sum())
    usable = finite & (rows.weights > 0.0)
    if not float(rows.weights[usable].sum()) > (1.0 + limits.SAME_WEIGHT) * 0.5 * total:
        raise NonFiniteRowsError(
            f"More than half of the rows' weight must be on finite rows; found {int((~finite).sum())} of "
            f"{rows.n_rows} rows that hold NaN or inf."
        )
    return np.flatnonzero(usable)


def check_fraction(value: Any) -> float:
    """Check an assumed share of corrupt rows, in [0, 0.5)."""
    fraction = check_number(value, "fraction", at_least=0.0, at_most=0.5)
    if fraction == 0.5:
        raise ValueError("fraction must be less than 0.5: half is the breakdown point of any rule.")
    return fraction


def n_assumed_corrupt(fraction: float, n: int) -> int:
    """Number of rows assumed corrupt among n: the fraction rounded up, and always less than half."""
    return min(math.ceil(share_of(fraction, n)), (n - 1) // 2)


def mean_of_selected(index: Any, rows: Rows) -> FloatArray:
    """Weights of the weighted mean of some rows: zero for the others, adding up to one."""
    weights = np.zeros(rows.n_rows)
    weights[index] = rows.weights[index]
    result: FloatArray = weights / weights.sum()
    return result
