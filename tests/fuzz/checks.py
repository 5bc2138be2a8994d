"""What must hold of an answer, whatever was asked."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

import skbgmd.location.paths.choice
from skbgmd import block_geometric_median, geometric_median
from skbgmd.aggregators import (
    AGGREGATORS,
    AdaptiveClipping,
    BlockGeometricMedian,
    Bucketing,
    GeometricMedian,
    HuberMean,
    Krum,
    NearestNeighborMixing,
    NormFilter,
    SpectralFilter,
    TrimmedMean,
)
from skbgmd.aggregators.memory import Scale
from skbgmd.corruption.gradients import GRADIENT_CORRUPTIONS
from skbgmd.rows import DenseRows

from .matrices import DTYPES, KINDS, RANGES, exact, matrix, weights
from .reference import Long, best_point, distances, objective
from .steps import answers, check_huber, draw_rule, steps_of

#: What an error says of a number that has no place in the dtype of the answer.
UNREPRESENTABLE = "number in"
TARGETS = ("geometric median", "geometric median", "block", "rule", "rule", "attack", "steps", "steps")


@dataclass
class Case:
    """One random case: what is called, with what, and how it is told apart."""

    seed: int
    target: str
    X: Any
    sample_weight: np.ndarray | None
    parameters: dict[str, Any]
    gram: bool
    note: str

    def __str__(self) -> str:
        shape = tuple(np.shape(self.X))
        weighted = "" if self.sample_weight is None else ", weighted"
        path = "Gram matrix" if self.gram else "R^d"
        return f"seed {self.seed}: {self.target} of {shape}, {self.note}{weighted}, {path}, {self.parameters}"


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    target = str(rng.choice(TARGETS))
    n, d = _sizes(rng)
    if target in ("rule", "attack"):
        dtype = str(rng.choice(["torch.float64", "torch.float32", "torch.float16", "bfloat16"]))
    elif target == "steps":
        dtype = str(rng.choice(["torch.float64", "torch.float32"]))
    else:
        dtype = str(rng.choice(DTYPES))
    X, note = matrix(rng, n, d, dtype, kinds=KINDS)
    parameters = PARAMETERS[target](rng, n, d)
    return Case(seed, target, X, weights(rng, n), parameters, bool(rng.random() < 0.5), note)


def _sizes(rng: np.random.Generator) -> tuple[int, int]:
    if rng.random() < 0.02:
        return int(rng.integers(2, 40)), int(rng.integers(1000, 1500))
    return int(rng.integers(1, rng.choice([3, 8, 24]))), int(rng.integers(1, rng.choice([3, 8, 24])))


def _of_median(rng: np.random.Generator, n: int, d: int) -> dict[str, Any]:
    found: dict[str, Any] = {"tol": float(rng.choice([0.1, 1e-3, 1e-6, 1e-6, 1e-9, 1e-12, 1e-15]))}
    if rng.random() < 0.1:
        found["max_iter"] = int(rng.integers(1, 6))
    return found


def _of_block(rng: np.random.Generator, n: int, d: int) -> dict[str, Any]:
    found = _of_median(rng, n, d) | {
        "beta": float(rng.choice([1e-9, 0.1, 0.5, 0.9, 1.0])),
        "selection": str(rng.choice(["top", "top", "sample", "uniform"])),
        "complement": str(rng.choice(["weighted", "zero", "memory"])),
        "memory_rule": str(rng.choice(["weighted", "mean"])),
        "clip_scores": bool(rng.random() < 0.5),
        "run_length": int(rng.choice([1, 1, 2, 7, 32, 100])),
        "random_state": int(rng.integers(100)),
    }
    return found


def _of_rule(rng: np.random.Generator, n: int, d: int) -> dict[str, Any]:
    name = str(rng.choice([*AGGREGATORS, "block_geometric_median", "huber_mean"]))
    fraction = float(rng.choice([0.0, 0.1, 0.25, 0.4, 0.49]))
    rejection = None if rng.random() < 0.5 else float(rng.choice([1.5, 10.0]))
    location = (
        GeometricMedian(rejection, str(rng.choice(["median", "huber"])))
        if name == "geometric_median" or (name == "block_geometric_median" and rng.random() < 0.5)
        else HuberMean(float(rng.choice([0.1, 0.5, 1.0, 5.0])), rejection, bool(rng.random() < 0.5))
    )
    made: Any = {
        "trimmed_mean": lambda: TrimmedMean(fraction),
        "norm_filter": lambda: NormFilter(fraction, bool(rng.random() < 0.5)),
        "krum": lambda: Krum(fraction, int(rng.choice([1, 3]))),
        "spectral_filter": lambda: SpectralFilter(
            fraction, None if rng.random() < 0.5 else float(rng.choice([0.5, 1.0]))
        ),
        "huber_mean": lambda: location,
        "geometric_median": lambda: location,
        "block_geometric_median": lambda: BlockGeometricMedian(
            beta=float(rng.choice([0.1, 0.5, 1.0])),
            location=location,
            selection=str(rng.choice(["top", "sample", "uniform"])),
            complement=str(rng.choice(["weighted", "zero", "memory"])),
            memory_rule=str(rng.choice(["weighted", "mean"])),
            clip_scores=bool(rng.random() < 0.7),
            run_length=int(rng.choice([1, 7, 32])),
            random_state=0,
        ),
        "bgmd_paper": lambda: BlockGeometricMedian.published(random_state=0),
    }.get(name, AGGREGATORS[name])
    rule = made()
    wrapping = rng.random()
    if wrapping < 0.15:
        rule = NearestNeighborMixing(rule, fraction)
    elif wrapping < 0.2:
        rule = AdaptiveClipping(rule, fraction)
    elif wrapping < 0.3 and not rule.remembers_workers:
        rule = Bucketing(rule, int(rng.integers(1, 5)), random_state=0)
    return {"rule": rule}


def _of_attack(rng: np.random.Generator, n: int, d: int) -> dict[str, Any]:
    acting = [name for name, kind in GRADIENT_CORRUPTIONS.items() if kind.stays_finite and not kind.acts_on_targets]
    name = str(rng.choice(acting))
    found: dict[str, Any] = {"attack": name, "fraction": float(rng.choice([0.1, 0.25, 0.45]))}
    if name in ("min_max", "min_sum"):
        found["direction"] = str(rng.choice(["std", "sign", "unit"]))
    return found


PARAMETERS: dict[str, Any] = {
    "geometric median": _of_median,
    "block": _of_block,
    "rule": _of_rule,
    "attack": _of_attack,
    "steps": draw_rule,
}


def check(case: Case) -> None:
    """Assert what must hold of a case's answer."""
    before = _bits(case.X)
    # Weiszfeld steps first, as long as they converge, in every other case.
    steps = 30 if case.seed % 2 else -1
    with (
        mock.patch.object(skbgmd.location.paths.choice, "takes_gram_path", return_value=case.gram),
        mock.patch.object(
            skbgmd.location.paths.choice, "weiszfeld_pays", side_effect=lambda n, d, needed: needed <= steps
        ),
    ):
        CHECKS[case.target](case)
    assert _bits(case.X) == before, "the input was changed"


def _bits(X: Any) -> Any:
    return exact(X).astype(np.float64).tobytes()


# ---------------------------------------------------------------------------------------------------------------------
# Both functions


def _called(function: Any, case: Case, **parameters: Any) -> tuple[Any, bool]:
    """What a function answers, and whether it warns that this isn't proved."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = function(case.X, sample_weight=case.sample_weight, **case.parameters, **parameters)
    other = [warning for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
    assert not other, f"warns: {other[0].message}"
    return answer, bool(caught)


def _answer(function: Any, case: Case, X: np.ndarray, a: np.ndarray) -> Any:
    """A checked result, or None where an error says rightly that a number of it has no place in its dtype."""
    try:
        median, warned = _called(function, case)
    except ValueError as error:
        if UNREPRESENTABLE not in str(error) or "memory" not in case.parameters:
            raise
        return None
    try:
        result, warned_too = _called(function, case, return_result=True)
    except ValueError as error:
        most = objective(X, exact(median), a) if "memory" not in case.parameters else Long(np.inf)
        if UNREPRESENTABLE not in str(error) or most < 0.9 * np.finfo(np.float64).max:
            raise
        return None
    assert warned == warned_too == (not result.converged), f"warns {warned}, {warned_too}; {result.converged}"
    assert result.converged == (result.gap <= case.parameters["tol"]), f"gap {result.gap} is said not to be so"
    assert result.gap >= 0.0
    np.testing.assert_array_equal(exact(median), exact(result.median))
    _check_kind(case.X, result.median, X.shape[1])
    _check_weights(case, result, X, a)
    return result


def _check_kind(given: Any, median: Any, d: int) -> None:
    assert tuple(median.shape) == (d,)
    assert np.isfinite(exact(median)).all(), "not finite"
    if isinstance(given, torch.Tensor):
        assert isinstance(median, torch.Tensor)
        assert median.device == given.device
        assert median.dtype == (given.dtype if given.is_floating_point() else torch.float64)
        return
    assert isinstance(median, np.ndarray)
    dtype = np.asarray(given).dtype
    assert median.dtype == (dtype.newbyteorder("=") if dtype.kind == "f" else np.float64), median.dtype


def _check_weights(case: Case, result: Any, X: np.ndarray, a: np.ndarray) -> None:
    w = exact(result.weights)
    info = torch.finfo if isinstance(result.weights, torch.Tensor) else np.finfo
    eps = float(info(result.weights.dtype).eps)
    assert w.shape == (len(X),)
    assert (w >= 0).all(), "negative weights"
    assert abs(w.sum() - 1) <= 4 * eps * len(w) ** 0.5, f"weights add up to {w.sum()}"
    assert not w[a == 0].any(), "a row of weight zero counts"


def _rounding_of(given: Any) -> tuple[Long, Long]:
    """Relative and absolute rounding of an answer to a matrix, computed in single precision where it is less."""
    dtype = str(given.dtype).removeprefix("torch.") if hasattr(given, "dtype") else "float64"
    name = {">f4": "float32", ">f2": "float16"}.get(dtype, dtype)
    name = name if name in RANGES else "float64"
    eps = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[name]
    return Long(eps), Long(RANGES[name][0])


def _check_reproduced(
    case: Case, w: np.ndarray, point: np.ndarray, X: np.ndarray, near: float = 0.0, clipped: float = 0.0
) -> None:
    """Weights make the answer, but for rounding of the answer, of the weights and of the sum.

    Rows so near to each other, relative to the others, may share what is one's. Lengths to which rows were ``clipped``
    are rounded.
    """
    eps, least = _rounding_of(case.X)
    work = max(min(eps, Long(2.0**-23)), Long(2.0**-52))
    size = (w[:, None] * np.abs(X)).sum(axis=0)
    # Weights below the normal numbers of their dtype have fewer digits.
    lost = (2.0**-149 if work > 1e-10 else 5e-324) * np.abs(X).max(axis=0)
    # In R^d the point is rounded as the largest of the differences are.
    apart = 8 * Long(2.0**-52) * np.abs(X).max() + 8 * work * Long(clipped)
    allowed = eps * np.abs(point) + 4 * (len(w) + 2) * work * size + 2 * len(w) * lost + (2 + len(w)) * least + apart
    off = np.abs(w @ X - point) - near * np.ptp(X, axis=0).max()
    assert (off <= allowed).all(), f"weights give {(w @ X)[off > allowed]}, not {point[off > allowed]}"


def _check_in_box(case: Case, point: np.ndarray, X: np.ndarray) -> None:
    eps, least = _rounding_of(case.X)
    # In R^d the point is rounded as the largest of the differences are.
    apart = 8 * Long(2.0**-52) * np.abs(X).max()
    room = 4 * (len(X) + 2) * eps * np.abs(X).max(axis=0) + (len(X) + 2) * least + apart
    low, high = X.min(axis=0), X.max(axis=0)
    assert ((point >= low - room) & (point <= high + room)).all(), "outside of the data's bounding box"


def _check_gap(case: Case, gap: float, point: np.ndarray, X: np.ndarray, a: np.ndarray) -> None:
    """The proof holds against the best point that is found, and doesn't say much less than could be said."""
    if np.isinf(gap):
        rounded = distances(X, X.astype(np.float64).astype(Long)).any()
        assert rounded or objective(X, point, a) > 0, "no proof where all rows are at the median"
        return
    value = objective(X, point, a)
    y, best = best_point(X, a, [point, np.median(X[a > 0], axis=0)])
    room = Long(1e-17)
    assert value <= (1 + Long(gap)) * best * (1 + room), f"gap {gap}, but the excess is {value / best - 1}"
    tol = case.parameters["tol"]
    lost = distances(X, X.astype(np.float64).astype(Long)).any()
    if gap <= tol or "max_iter" in case.parameters or tol < 1e-9 or lost:
        return
    # There is a warning: is there no good point of the dtype?
    assert value > (1 + 1e-3 * tol) * best, f"gap {gap}, for an excess of {value / best - 1}"
    if _rounding_of(case.X)[0] > 1e-15 or (y == X).all(axis=1).any():
        return  # the best of the points that a dtype has is not looked for
    possible = objective(X, y.astype(np.float64).astype(Long), a)
    assert possible > (1 + 1e-3 * tol) * best, f"gap {gap}, but {possible / best - 1} is possible"


def check_geometric_median(case: Case) -> None:
    X = exact(case.X)
    a = np.ones(len(X), dtype=Long) if case.sample_weight is None else case.sample_weight.astype(Long)
    result = _answer(geometric_median, case, X, a)
    if result is None:
        return
    point = exact(result.median)
    value = objective(X, point, a)
    # Integers are computed with as float64.
    lost = a @ distances(X, X.astype(np.float64).astype(Long))
    room = 1e-12 * value + len(X) * max(a.max(), 1) * 5e-324 + lost
    assert abs(result.objective - value) <= room, f"objective {result.objective}, not {value}"
    _check_reproduced(case, exact(result.weights), point, X)
    _check_in_box(case, point, X[a > 0])
    _check_gap(case, result.gap, point, X, a)
    _check_breakdown(case, point, X, a, result.converged)


def _check_breakdown(case: Case, point: np.ndarray, X: np.ndarray, a: np.ndarray, converged: bool) -> None:
    """Among far rows of less than half of the weight, the answer stays where the others are."""
    d = distances(X, np.median(X, axis=0))
    far = d > 100 * np.median(d)
    share = a[far].sum() / a.sum()
    if not far.any() or share >= 0.45 or not converged or case.parameters["tol"] > 1e-6:
        return
    near = X[~far & (a > 0)]
    centre = near.mean(axis=0)
    radius = distances(near, centre).max()
    eps, least = _rounding_of(case.X)
    # Lopuhaä and Rousseeuw (1991).
    bound = 2 * (1 - share) / (1 - 2 * share) * radius * (1 + 1e-2)
    rounding = len(centre) ** 0.5 * (4 * eps * np.abs(near).max() + 2 * least)
    assert distances(point[None], centre)[0] <= bound + rounding, "far rows carry the answer away"


def check_block(case: Case) -> None:
    X = exact(case.X)
    a = np.ones(len(X), dtype=Long) if case.sample_weight is None else case.sample_weight.astype(Long)
    d = X.shape[1]
    complement = case.parameters["complement"]
    memory = None
    if complement == "memory" and case.seed % 2:
        rng = np.random.default_rng(case.seed)
        memory = X[int(rng.integers(len(X)))].astype(np.float64) * rng.choice([0.1, 1.0])
        case.parameters["memory"] = memory
    result = _answer(block_geometric_median, case, X, a)
    if result is None:
        return
    block = np.asarray(result.block)
    k = max(1, int(np.ceil(case.parameters["beta"] * d)))
    assert k <= len(block) <= min(d, k + 2 * case.parameters["run_length"]), f"{len(block)} columns, not {k}"
    assert (np.diff(block) > 0).all()
    step = exact(result.median)
    outside = np.setdiff1d(np.arange(d), block)
    if complement != "weighted":
        assert not step[outside].any()
    assert (result.memory is None) == (complement != "memory")
    point, inside = step[block], X[:, block]
    if memory is None:
        _check_reproduced(case, exact(result.weights), point, inside, near=1e-6 if case.gram else 0.0)
        _check_in_box(case, point, inside[a > 0])
        _check_gap(case, result.gap, point, inside, a)


# ---------------------------------------------------------------------------------------------------------------------
# Rules and attacks


def check_rule(case: Case) -> None:
    rule, X = case.parameters["rule"], exact(case.X)
    a = np.ones(len(X)) if case.sample_weight is None else case.sample_weight / case.sample_weight.max()
    rows = [DenseRows(case.X, a.copy()) for _ in range(2)]
    state = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aggregate, state = rule(rows[0])
        again, _ = rule(rows[1])
        try:
            later, _ = rule(DenseRows(case.X, a.copy()), state)
        except ValueError as error:
            # The sum of a memory and a step may have no number.
            if UNREPRESENTABLE not in str(error):
                raise
            later = aggregate
    assert torch.equal(aggregate.vector, again.vector), "another answer the second time"
    for found in (aggregate, later):
        _check_aggregate(case, found, X, a)
    if aggregate.weights is None or _leaves_out_parts(rule):
        used = X[a > 0]
        # Zero, where a part is left out or clipped.
        used = np.vstack([used, 0 * used[:1]]) if _leaves_out_parts(rule) else used
        _check_in_box(case, exact(aggregate.vector), used)
    else:
        _check_reproduced(case, aggregate.weights.astype(Long), exact(aggregate.vector), X)


def _check_aggregate(case: Case, found: Any, X: np.ndarray, a: np.ndarray) -> None:
    vector = exact(found.vector)
    assert vector.shape == (X.shape[1],)
    assert np.isfinite(vector).all(), "not finite"
    assert found.vector.dtype == (torch.float64 if case.X.dtype == torch.float64 else torch.float32)
    if found.weights is not None:
        assert np.isfinite(found.weights).all()
        assert (found.weights >= 0).all()
        assert abs(found.weights.sum() - 1.0) <= 1e-12, f"weights add up to {found.weights.sum()}"
        assert not found.weights[a == 0].any()
    if found.mass is not None:
        assert 0.0 <= found.mass <= 1.0


def check_steps(case: Case) -> None:
    """What must hold of each step of a training, and of one that was saved and loaded after each."""
    rule, steps = case.parameters["rule"], steps_of(case)
    a = np.ones(len(case.X)) if case.sample_weight is None else case.sample_weight / case.sample_weight.max()
    try:
        found = answers(case, steps, a)
        again = answers(case, steps, a, saved=True)
    except ValueError as error:
        # The sum of a memory and a step may have no number.
        if UNREPRESENTABLE not in str(error):
            raise
        return
    whole = isinstance(rule, BlockGeometricMedian) and rule.beta == 1.0
    for number, (step, (aggregate, state), (same, _)) in enumerate(zip(steps, found, again, strict=True), 1):
        assert torch.equal(aggregate.vector, same.vector), "another answer once it was saved and loaded"
        assert state.step == number
        X = step.whole
        of_step = replace(case, X=torch.empty(0, dtype=case.X.dtype))
        _check_aggregate(of_step, aggregate, X, a)
        if whole:
            # What is left out of a mean again leaves rounding of its clipped length there.
            location, scale = rule.location, state.location or Scale()
            reach = getattr(location, "c", 0.0) * scale.value
            _check_reproduced(of_step, aggregate.weights.astype(Long), exact(aggregate.vector), X, clipped=reach)
            for length in (scale, state.off_block):
                assert 0.0 <= length.value < np.inf, f"a scale of {length.value}"
            if isinstance(location, HuberMean) and location.rejection is None:
                check_huber(location, aggregate, scale, X, a)


def _leaves_out_parts(rule: Any) -> bool:
    inner = getattr(rule, "aggregator", None)
    return isinstance(rule, BlockGeometricMedian | AdaptiveClipping) or (inner is not None and _leaves_out_parts(inner))


def _coordinate_median(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.median(dim=0).values


def check_attack(case: Case) -> None:
    name, parameters = case.parameters["attack"], dict(case.parameters)
    attack = GRADIENT_CORRUPTIONS[parameters.pop("attack")](**parameters)
    if name == "mimic" and attack.target >= len(case.X):
        return
    attack.random_state = 0
    if "aggregator" in attack.get_params():
        attack.aggregator = _coordinate_median
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attack(case.X)
        again = attack(case.X)
    assert found.dtype == case.X.dtype
    assert found.shape == case.X.shape
    assert torch.isfinite(found.double()).all(), "not finite"
    assert torch.equal(found, again), "another answer the second time"
    same = (found == case.X).all(dim=1).sum()
    assert len(case.X) - same <= parameters["fraction"] * len(case.X) + 1e-9


CHECKS: dict[str, Any] = {
    "geometric median": check_geometric_median,
    "block": check_block,
    "rule": check_rule,
    "attack": check_attack,
    "steps": check_steps,
}
