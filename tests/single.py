"""Gradients of single samples from as many backward passes, and what rows of them have to answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from skbgmd.ghost import GhostRows, GradientRecorder
from skbgmd.rows.blocks import ParameterBlock


@pytest.fixture(autouse=True)
def forked_initialisation() -> Iterator[None]:
    """Layers are initialised from torch's global generator, which is then as it was: to be imported."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


DTYPES = st.sampled_from([torch.float32, torch.float64])


def reference(module: nn.Module, x: torch.Tensor, loss: Any) -> torch.Tensor:
    """Gradients of each sample's loss, (n, d), from as many backward passes."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    lines = []
    for i in range(len(x)):
        gradients = torch.autograd.grad(loss(module(x[i : i + 1])).sum(), parameters, allow_unused=True)
        lines.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).reshape(-1)
                    for p, g in zip(parameters, gradients, strict=True)
                ]
            )
        )
    return torch.stack(lines)


def ghost(module: nn.Module, x: torch.Tensor, loss: Any) -> GhostRows:
    parameters = [p for p in module.parameters() if p.requires_grad]
    with GradientRecorder(module, parameters) as recorder:
        losses = loss(module(x))
    return GhostRows(recorder.factors(losses), len(x), sum(p.numel() for p in parameters), device=x.device)


def loss(output: Any) -> torch.Tensor:
    """A loss of each sample that is curved in every output."""
    output = output[0] if isinstance(output, tuple) else output
    flat = output.flatten(1)
    weights = torch.linspace(0.5, 1.5, flat.shape[1], dtype=flat.dtype)
    return (flat + 0.1).square() @ weights + (flat @ weights / flat.shape[1]).sin()


def check(module: nn.Module, x: torch.Tensor, tol: float | None = None) -> None:
    """Gram matrix, norms, weighted sums, scores and columns against those of the written-out gradients."""
    exact = reference(module, x, loss).double().detach()
    rows = ghost(module, x, loss)
    tol = tol or (1e-5 if rows.dtype == torch.float32 else 1e-10)
    lengths = exact.norm(dim=1)
    scale = max(float(lengths.max()), 1e-30)
    K = exact @ exact.T
    assert np.abs(rows.gram().products - K.numpy()).max() <= tol * scale**2
    # Of the other ways too: the Gram matrix is known now, and norms would be its diagonal.
    np.testing.assert_allclose(ghost(module, x, loss).norms(), lengths, rtol=tol, atol=tol * scale)
    rng = np.random.default_rng(0)
    w = rng.dirichlet(np.ones(len(x)), size=2)
    close(rows.weighted_sum(w), torch.as_tensor(w) @ exact, tol, scale)
    close(rows.weighted_sum(w[0]), torch.as_tensor(w[0]) @ exact, tol, scale)
    shift = torch.as_tensor(rng.normal(size=rows.n_columns), dtype=rows.dtype)
    factors = rng.uniform(0.5, 1.0, size=len(x))
    scores = (torch.as_tensor(factors)[:, None] * exact).square().sum(dim=0)
    close(rows.column_scores(factors), scores, tol, scale**2 * len(x))
    shifted = (torch.as_tensor(factors)[:, None] * exact + shift).square().sum(dim=0)
    close(rows.column_scores(factors, shift), shifted, 10 * tol, (scale + float(shift.abs().max())) ** 2 * len(x))
    index = torch.as_tensor(rng.permutation(rows.n_columns)[:50])
    close(rows.columns(index), exact[:, index], tol, scale)
    close(torch.cat([chunk for _, chunk in rows.column_chunks()], dim=1), exact, tol, scale)
    some, two = np.array([len(x) - 1, 0]), np.array([0.3, 0.7])
    close(
        rows.subset(some).weighted_sum(two),
        exact[some].T @ torch.as_tensor(two),
        tol,
        scale,
    )
    check_block(module, ghost(module, x, loss), exact, tol, scale)
    groups = [slice(0, 2), slice(2, len(x))]
    sums = torch.stack([exact[group].sum(dim=0) for group in groups])
    together = rows.grouped(groups, np.ones(2))
    assert np.abs(together.gram().products - (sums @ sums.T).numpy()).max() <= tol * (scale * len(x)) ** 2
    close(
        together.weighted_sum(two),
        torch.as_tensor(two) @ sums,
        tol,
        scale * len(x),
    )


def check_block(module: nn.Module, rows: GhostRows, exact: torch.Tensor, tol: float, scale: float) -> None:
    """Every other unit or so: the rows on them, and sums with weights of their own there."""
    units = ParameterBlock.of([p for p in module.parameters() if p.requires_grad])
    chosen = np.flatnonzero(np.arange(len(units.starts)) * 7 % 3 > 0) if len(units.starts) > 1 else np.array([0])
    block = replace(units, chosen=chosen)
    factors = np.random.default_rng(2).uniform(0.5, 1.0, size=rows.n_rows)
    squares = (torch.as_tensor(factors)[:, None] * exact).square().sum(dim=0)
    close(rows.unit_scores(units, factors), units.sums(squares), tol, scale**2 * rows.n_rows)
    inside = exact[:, block.indices]
    assert np.abs(rows.block(block).gram().products - (inside @ inside.T).numpy()).max() <= tol * scale**2
    on_block, elsewhere = np.random.default_rng(1).dirichlet(np.ones(rows.n_rows), size=2)
    both = torch.as_tensor(elsewhere) @ exact
    both[block.indices] = torch.as_tensor(on_block) @ inside
    close(rows.weighted_sum_by_block(on_block, elsewhere, block), both, tol, scale)


def close(found: torch.Tensor, exact: torch.Tensor, tol: float, scale: float) -> None:
    assert found.shape == exact.shape
    assert float((found.double() - exact).abs().max()) <= tol * scale


def made(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
