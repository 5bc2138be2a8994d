"""Random matrices: the kinds of rows that solvers and rules stumble over, of any size and in any dtype and layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

Long = np.longdouble

DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "torch.float64",
    "torch.float32",
    "torch.float16",
    ">f8",
    ">f4",
    ">f2",
    "int64",
    "int8",
    "bool",
    "torch.int32",
    "list",
    "frame",
)
LAYOUTS = ("C", "F", "rows reversed", "columns reversed", "every other", "transposed", "zero strides", "read-only")
MAGNITUDES = ("one", "one", "one", "any", "denormal", "tiny", "huge", "largest")
#: The widest floating numbers of each family: smallest positive one, smallest normal one, largest.
RANGES = {
    "float64": (5e-324, 2.2250738585072014e-308, 1.7976931348623157e308),
    "float32": (1.401298464324817e-45, 1.1754943508222875e-38, 3.4028234663852886e38),
    "float16": (5.960464477539063e-08, 6.103515625e-05, 65504.0),
    "bfloat16": (9.183549615799121e-41, 1.1754943508222875e-38, 3.3895313892515355e38),
}
FAMILIES = {
    ">f8": "float64",
    ">f4": "float32",
    ">f2": "float16",
    "torch.float64": "float64",
    "torch.float32": "float32",
    "torch.float16": "float16",
    "list": "float64",
    "frame": "float64",
}


def rows_of_kind(kind: str, rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Rows (n, d) of order one, or of orders far apart, in extended precision."""
    X = rng.normal(size=(n, d)).astype(Long)
    few = rng.random(n) < 0.4
    if kind == "grid":
        X = rng.integers(-2, 3, size=(n, d)).astype(Long)
    elif kind == "collinear":
        X = rng.integers(-50, 50, size=(n, 1)).astype(Long) * rng.integers(-3, 4, size=d)
    elif kind == "clusters":
        X = Long(10) ** rng.uniform(-8, 0) * X + (rng.random((n, 1)) < 0.49) * rng.normal(size=d) * 10
    elif kind == "duplicates":
        X = X[rng.integers(0, max(1, n // 2), size=n)]
    elif kind == "most are equal":
        X[rng.random(n) < 0.7] = X[0]
    elif kind == "most are nearly equal":
        most = rng.random(n) < 0.7
        X[most] = X[0] * (1 + Long(10) ** rng.uniform(-17, -4) * rng.normal(size=(int(most.sum()), d)))
    elif kind == "all equal":
        X[:] = X[0]
    elif kind == "a value in most rows":
        X[rng.random((n, d)) < 0.7] = rng.choice([0.0, 0.1, 1.0])
    elif kind == "sparse":
        X[rng.random((n, d)) < 0.8] = 0.0
    elif kind == "outliers":
        X[few] *= Long(10) ** rng.uniform(1, 30)
    elif kind == "shifted outliers":
        X[few] += Long(10) ** rng.uniform(1, 30)
    elif kind == "offset":
        X += Long(10) ** rng.uniform(0, 14) * rng.choice([-1.0, 1.0])
    elif kind == "near a vertex":
        third = max(1, n // 3)
        X[:third] = X[0] + Long(10) ** rng.uniform(-12, -1) * rng.normal(size=(third, d))
    elif kind == "rows of all sizes":
        X *= Long(10) ** rng.uniform(-rng.uniform(1, 600), 0, size=(n, 1))
    elif kind == "numbers of all sizes":
        X *= Long(10) ** rng.uniform(-rng.uniform(1, 600), 0, size=(n, d))
    elif kind == "columns of all sizes":
        X *= Long(10) ** rng.uniform(-rng.uniform(1, 300), 0, size=d)
    elif kind == "two sizes":
        X[few] *= Long(10) ** -rng.uniform(1, 600)
    elif kind == "symmetric":
        X[n - n // 2 :] = -X[: n // 2]
    return X


KINDS = (
    "normal",
    "grid",
    "collinear",
    "clusters",
    "duplicates",
    "most are equal",
    "most are nearly equal",
    "all equal",
    "a value in most rows",
    "sparse",
    "outliers",
    "shifted outliers",
    "offset",
    "near a vertex",
    "rows of all sizes",
    "numbers of all sizes",
    "columns of all sizes",
    "two sizes",
    "symmetric",
)


def largest_of(magnitude: str, family: str, rng: np.random.Generator) -> Long | None:
    """The largest number that a matrix is to hold; None: as it is."""
    smallest, normal, largest = (Long(value) for value in RANGES[family])
    if magnitude == "one":
        return None
    if magnitude == "denormal":
        return smallest * Long(10) ** rng.uniform(0, 5)
    if magnitude == "tiny":
        return normal * Long(10) ** rng.uniform(0, 4)
    if magnitude == "huge":
        return largest * Long(10) ** -rng.uniform(0.5, 4)
    if magnitude == "largest":
        return largest * Long(rng.uniform(0.3, 1.0))
    exponent = rng.uniform(float(np.log10(normal)), float(np.log10(largest)))
    return min(Long(10) ** exponent, largest)


def matrix(rng: np.random.Generator, n: int, d: int, dtype: str, *, kinds: tuple[str, ...] = KINDS) -> tuple[Any, str]:
    """A matrix as a caller may hand it in, and what kind it is."""
    kind, magnitude = str(rng.choice(kinds)), str(rng.choice(MAGNITUDES))
    layout = str(rng.choice(LAYOUTS)) if rng.random() < 0.4 else "C"
    X = rows_of_kind(kind, rng, n, d)
    if dtype in ("int64", "int8", "bool", "torch.int32"):
        return in_layout(_integers(X, dtype, rng), layout), f"{kind}, {dtype}, {layout}"
    family = FAMILIES.get(dtype, dtype)
    top, limit = largest_of(magnitude, family, rng), Long(RANGES[family][2])
    size = np.abs(X).max()
    if top is not None and size > 0:
        X = X / size * top
    X = np.clip(X, -limit, limit)
    with np.errstate(under="ignore"):
        given = X.astype(np.float32 if family == "bfloat16" else family)
    if dtype in ("bfloat16", "torch.float64", "torch.float32", "torch.float16"):
        tensor = torch.from_numpy(given)
        tensor = (
            tensor.to(torch.bfloat16).clamp(-RANGES[family][2], RANGES[family][2]) if dtype == "bfloat16" else tensor
        )
        return _tensor_in_layout(tensor, layout), f"{kind}, {magnitude}, {dtype}, {layout}"
    if dtype == "list":
        return given.tolist(), f"{kind}, {magnitude}, list"
    if dtype == "frame":
        return pd.DataFrame(given), f"{kind}, {magnitude}, frame"
    if dtype.startswith(">"):
        given = given.astype(dtype)
    return in_layout(given, layout), f"{kind}, {magnitude}, {dtype}, {layout}"


def _integers(X: np.ndarray, dtype: str, rng: np.random.Generator) -> Any:
    if dtype == "bool":
        return X > 0
    top = {"int8": 127, "torch.int32": 2**31 - 1}.get(dtype, int(rng.choice([100, 2**40, 2**62])))
    size = np.abs(X).max()
    X = np.round(X / (size if size > 0 else 1) * min(top, int(rng.choice([5, top]))))
    if dtype == "torch.int32":
        return torch.from_numpy(X.astype(np.int64).astype(np.int32))
    return X.astype(np.int64).astype(dtype)


def in_layout(X: Any, layout: str) -> Any:
    """The same numbers, differently in memory; for "zero strides" all rows are as the first."""
    if isinstance(X, torch.Tensor):
        return _tensor_in_layout(X, layout)
    if layout == "F":
        return np.asfortranarray(X)
    if layout == "rows reversed":
        return X[::-1].copy()[::-1]
    if layout == "columns reversed":
        return X[:, ::-1].copy()[:, ::-1]
    if layout == "every other":
        return np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]
    if layout == "transposed":
        return X.T.copy().T
    if layout == "zero strides":
        return np.broadcast_to(X[0], X.shape)
    X = X.copy()
    X.flags.writeable = layout != "read-only"
    return X


def _tensor_in_layout(X: torch.Tensor, layout: str) -> torch.Tensor:
    if layout in ("F", "transposed"):
        return X.T.contiguous().T
    if layout == "every other":
        return X.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3]
    if layout == "zero strides":
        return X[0].expand(X.shape)
    return X


def exact(X: Any) -> np.ndarray:
    """What a matrix or vector holds, in extended precision."""
    if isinstance(X, torch.Tensor):
        X = X.cpu().double().numpy() if X.is_floating_point() else X.cpu().numpy()
    return np.asarray(X).astype(Long)


def weights(rng: np.random.Generator, n: int) -> np.ndarray | None:
    """Row weights, some zero, some huge."""
    kind = rng.choice(["none", "none", "integers", "zeros", "ratios", "one heavy"])
    if kind == "none":
        return None
    if kind == "integers":
        found = rng.integers(1, 6, size=n)
    elif kind == "zeros":
        found = rng.choice([0.0, 0.5, 1.0, 7.3], size=n)
    elif kind == "ratios":
        found = 10.0 ** rng.uniform(-rng.uniform(1, 300), 0, size=n)
    else:
        found = rng.uniform(0.5, 1.0, size=n)
        found[rng.integers(n)] = n * rng.choice([0.9, 1.0, 3.0, 1e9])
    if not found.any():
        found[0] = 1.0
    return found
