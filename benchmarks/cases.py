"""The cases, as data: shapes and kinds of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

#: Rows, columns, dtype of the comparison with peers.
SHAPES = [
    (100, 2, "float64"),
    (10_000, 2, "float64"),
    (300_000, 3, "float64"),
    (5_000_000, 3, "float64"),
    (1000, 100, "float64"),
    (500, 5000, "float64"),
    (32, 116_000, "float32"),
    (32, 1_163_978, "float32"),
    (1024, 41_000, "float32"),
]
QUICK_SHAPES = [(100, 2, "float64"), (1000, 2, "float64"), (10, 2000, "float32")]
KINDS = ["easy", "outliers", "clusters", "vertex"]
#: Matrices of gradients, float32: the paper's LeNet with 32 rows, and more rows.
GRADIENTS = [(32, 1_163_978), (512, 116_000), (2048, 41_000)]
QUICK_GRADIENTS = [(32, 20_000), (64, 9_000)]
RUN_LENGTHS = [1, 16, 64]


@dataclass(frozen=True)
class NamedCase:
    """A case that its name says all of."""

    name: str


@dataclass(frozen=True)
class StepCase:
    """A training step: a network, and so many rows of so many samples."""

    network: str
    rows: int
    samples: int

    @property
    def name(self) -> str:
        return f"{self.network}, {self.rows}x{self.samples}"


@dataclass(frozen=True)
class Case:
    """One matrix.

    Kinds: "easy", N(0, I); "outliers", 70 % of that and 30 % about (10, 10, ...); "shifted", the same about
    (3, 3, ...); "clusters", two far clusters of 51 % and 49 %; "vertex", an optimum on a row that Weiszfeld approaches
    slowly.
    """

    n: int
    d: int
    dtype: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.n}x{self.d} {self.dtype} {self.kind}"

    def matrix(self, seed: int) -> Any:
        """A NumPy array in float64, a tensor in float32."""
        generator = torch.Generator().manual_seed(seed)
        X = torch.randn(self.n, self.d, generator=generator, dtype=getattr(torch, self.dtype))
        if self.kind == "outliers":
            X[: int(0.3 * self.n)] += 10.0
        elif self.kind == "shifted":
            X[: int(0.3 * self.n)] += 3.0
        elif self.kind == "clusters":
            # The distance, 100 sqrt(d), is a hundred times what the norm of a row's noise is.
            X[: int(0.49 * self.n)] += 100.0
        elif self.kind == "vertex":
            _put_optimum_on_a_row(X)
        return X.numpy() if self.dtype == "float64" else X


def _put_optimum_on_a_row(X: torch.Tensor) -> None:
    """Unit vectors, a quarter of them shifted, and so many rows at zero that these just outweigh the others' pull.

    Zero is optimal if as many rows as the norm of the sum of the other rows' directions lie there. With the least
    such number it barely is, and Weiszfeld's iteration nears it sublinearly.
    """
    X /= torch.linalg.vector_norm(X, dim=1, keepdim=True)
    X[: len(X) // 4] += 0.5 * X[-1]
    directions = X / torch.linalg.vector_norm(X, dim=1, keepdim=True)
    pull = directions.sum(0, dtype=torch.float64)
    for copies in range(1, len(X)):
        pull -= directions[copies - 1]
        if float(torch.linalg.vector_norm(pull)) <= copies:
            X[:copies] = 0.0
            return
    raise AssertionError("No multiplicity outweighs the others.")


def median_cases(quick: bool) -> list[Case]:
    """The comparison with peers."""
    return [Case(n, d, dtype, kind) for n, d, dtype in (QUICK_SHAPES if quick else SHAPES) for kind in KINDS]


def path_cases(quick: bool) -> list[Case]:
    """Where the two ways to a geometric median meet."""
    shares = dict.fromkeys([10, 50] if quick else [10, 100, 400, 1000], (0.5, 1, 1.5, 2, 4))
    if not quick:
        shares |= dict.fromkeys((2048, 5000), (0.0625, 0.125, 0.25, 0.5))
    return [Case(int(share * d), d, "float64", "outliers") for d, of_d in shares.items() for share in of_d]


def memory_cases(quick: bool) -> list[Case]:
    """Matrices of gradients, many points of few columns in either dtype, and a thousand rows of many columns."""
    if quick:
        return [*gradient_cases(quick), Case(20_000, 3, "float32", "easy")]
    points = [Case(5_000_000, 3, dtype, kind) for dtype in ("float32", "float64") for kind in KINDS]
    return [*gradient_cases(quick), *points, Case(1024, 41_000, "float32", "easy")]


def gradient_cases(quick: bool) -> list[Case]:
    """Aggregators and block steps."""
    return [Case(n, d, "float32", "shifted") for n, d in (QUICK_GRADIENTS if quick else GRADIENTS)]


def step_cases(quick: bool) -> list[StepCase]:
    """Training steps; only the small one if it is to be quick."""
    small = StepCase("MLP", 8, 16)
    return [small] if quick else [StepCase("LeNet", 32, 64), small]
