"""The cases, as data: shapes, kinds of data, and what is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

#: Rows, columns, dtype of the comparison with peers.
SHAPES = [
    (100, 2, "float64"),
    (10_000, 2, "float64"),
    (300_000, 3, "float64"),
    (1000, 100, "float64"),
    (500, 5000, "float64"),
    (32, 116_000, "float32"),
    (32, 1_163_978, "float32"),
    (1024, 41_000, "float32"),
]
#: 30 % outliers; two far clusters of 51 % and 49 %; an optimum on a row that Weiszfeld approaches slowly.
KINDS = ["outliers", "clusters", "vertex"]
#: Matrices of gradients, float32: the paper's LeNet with 32 rows, and more rows.
GRADIENTS = [(32, 1_163_978), (512, 116_000), (2048, 41_000)]
RUN_LENGTHS = [1, 16, 64]


@dataclass(frozen=True)
class Case:
    """One matrix."""

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
            X[: int(0.3 * self.n)] += 3.0 if self.d > 1000 else 10.0
        elif self.kind == "clusters":
            X[: int(0.49 * self.n)] += 100.0
        else:
            X = _vertex(X)
        return X.numpy() if self.dtype == "float64" else X


def _vertex(X: torch.Tensor) -> torch.Tensor:
    """Unit vectors, and so many rows at zero that they just outweigh the pull of the others."""
    X /= torch.linalg.vector_norm(X, dim=1, keepdim=True)
    X[: len(X) // 4] += 0.5 * X[-1]
    for copies in range(1, len(X)):
        rest = X[copies:] / torch.linalg.vector_norm(X[copies:], dim=1, keepdim=True)
        if float(torch.linalg.vector_norm(rest.sum(0))) <= copies:
            X[:copies] = 0.0
            return X
    raise AssertionError("no multiplicity outweighs the others")


def median_cases(quick: bool) -> list[Case]:
    """The comparison with peers."""
    shapes = [*SHAPES[:2], (10, 2000, "float32")] if quick else SHAPES
    return [Case(n, d, dtype, kind) for n, d, dtype in shapes for kind in KINDS]


def path_cases(quick: bool) -> list[Case]:
    """Where the two ways to a geometric median meet."""
    columns = [10, 50] if quick else [10, 100, 400, 1000]
    return [Case(int(n * d), d, "float64", "outliers") for d in columns for n in (0.5, 1, 1.5, 2, 4)]


def gradient_cases(quick: bool) -> list[Case]:
    """Aggregators and block steps."""
    shapes = [(32, 20_000), (64, 9_000)] if quick else GRADIENTS
    return [Case(n, d, "float32", "outliers") for n, d in shapes]
