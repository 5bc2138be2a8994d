"""Lemma 1, theorems 1 and 2 and figure 1a as measured curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paper.cases import Protocol, Setting
from paper.data import load
from paper.methods import methods
from paper.networks import network
from skbgmd import RobustNeuralNetClassifier
from skbgmd.aggregators import Aggregate, BlockGeometricMedian
from skbgmd.corruption import BitFlip
from skbgmd.location.block_selection import select_block
from skbgmd.rows import DenseRows

BETAS = (0.001, 0.01, 0.05, 0.1, 0.3)
#: Draws that an expectation is the mean of.
DRAWS = 50
RULES = ("SGD", "GMD", "BGMD, paper", "BGMD, authors' code", "BGMD")
#: Workers, dimensions and steps of the problems of the theorems.
WORKERS, DIMENSIONS, STEPS = 20, 200, 400
#: Curvature of the waves that make the first problem non-convex; that of its squared error is from 0.001 to 0.01.
WAVE = 0.01


def THEORY(protocol: Protocol) -> list[dict[str, Any]]:
    """All curves."""
    cases: list[dict[str, Any]] = [
        {"what": "lemma 1", "method": columns, "parameter": beta}
        for columns in ("equal columns", "power law", "few columns")
        for beta in BETAS
    ]
    network_name = protocol.lenet.network
    cases += [{"what": f"residual, {network_name}", "method": "BGMD, paper", "parameter": beta} for beta in BETAS]
    cases += [
        {"what": what, "method": method, "parameter": percent}
        for what in ("theorem 1", "theorem 2")
        for method in RULES
        for percent in (0, 20, 40)
    ]
    return cases


def theory(what: str, method: str, parameter: float, *, device: str) -> dict[str, Any]:
    """Points ``x:y`` of one curve."""
    if what == "lemma 1":
        points = lemma_1(method, parameter)
    elif what.startswith("residual"):
        points = residuals(what.removeprefix("residual, "), parameter, device)
    else:
        points = descent(what, method, int(parameter))
    return {"values": " ".join(f"{x:g}:{y:.4g}" for x, y in points)}


def lemma_1(columns: str, beta: float) -> list[tuple[float, float]]:
    """Expected share of the squares that sampling leaves out, and its bound 1 - k / d."""
    generator = torch.Generator().manual_seed(0)
    d = 2000
    scale = {
        "equal columns": torch.ones(d),
        "power law": 1.0 / torch.arange(1, d + 1),
        "few columns": (torch.arange(d) < 20) + 1e-3,
    }[columns]
    rows = DenseRows((torch.randn(16, d, generator=generator) * scale).double())
    total = float(rows.matrix.square().sum())
    left = []
    for _ in range(DRAWS):
        block = select_block(rows, beta, selection="sample", clip=False, generator=generator)
        left.append(1.0 - float(rows.columns(block.indices).square().sum()) / total)
    return [(beta, float(np.mean(left))), (beta, 1.0 - len(block.indices) / d)]


class Residuals(BlockGeometricMedian):
    """The published rule, which notes what share of the squares its block leaves out."""

    def __call__(self, rows: Any, state: Any = None) -> tuple[Aggregate, Any]:
        aggregate, after = super().__call__(rows, state)
        NOTED.append(1.0 - float(rows.columns(aggregate.block).square().sum()) / float((rows.norms() ** 2).sum()))
        return aggregate, after


#: What :class:`Residuals` noted; nets copy their aggregators.
NOTED: list[float] = []


def residuals(network_name: str, beta: float, device: str) -> list[tuple[float, float]]:
    """Figure 1a: the share left out, step by step, in training on clean data."""
    data = "fashion-mnist" if network_name == "LeNet" else "digits"
    setting = Setting(network_name, data, 4096 if data == "fashion-mnist" else 512, 32, 16, epochs=3)
    images = load(setting, folder=None, validate=False, n_validation=0, seed=0)
    NOTED.clear()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = RobustNeuralNetClassifier(
            network(network_name, 1),
            criterion=torch.nn.CrossEntropyLoss,
            aggregator=Residuals(**BlockGeometricMedian.published(beta, random_state=0).get_params()),
            group_size=setting.samples,
            batch_size=setting.rows * setting.samples,
            optimizer=torch.optim.SGD,
            lr=0.05,
            max_epochs=setting.epochs,
            iterator_train__shuffle=True,
            iterator_train__stratify=None,
            train_split=None,
            device=device,
            verbose=0,
        )
        net.fit(images.X, images.y)
    return [(float(step), share) for step, share in enumerate(NOTED)]


def descent(what: str, method: str, percent: int) -> list[tuple[float, float]]:
    """Theorem 1: squared gradient norm by step on least squares with waves on top; theorem 2: squared distance to the
    optimum under the Polyak-Lojasiewicz condition. Some of the workers send -10 times their gradient.
    """
    rng = np.random.RandomState(0)
    A = rng.standard_normal((40 * WORKERS, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    truth = rng.standard_normal(DIMENSIONS)
    wave = 0.0
    if what == "theorem 2":
        # Singular: a line of optima in each of the last dimensions, so not strongly convex, and no noise.
        A[:, DIMENSIONS // 2 :] = 0.0
        y = A @ truth
    else:
        wave = WAVE
        y = A @ truth + 0.1 * rng.standard_normal(len(A))
    smoothness = np.linalg.norm(A, 2) ** 2 / len(A) + wave
    lr = 1.0 / ((4.0 if what == "theorem 2" else 2.0) * smoothness)
    x, state, points = np.zeros(DIMENSIONS), None, []
    rule, attack = methods()[method], BitFlip(percent / 100.0, scale=-10.0) if percent else None
    for step in range(STEPS):
        part = rng.permutation(len(A)).reshape(WORKERS, -1)[:, :10]  # ten samples of each worker
        G = torch.from_numpy(np.stack([gradient(A[index], y[index], x, wave) for index in part]))
        if attack is not None:
            G = attack(G, random_state=step)
        try:
            aggregate, state = rule(DenseRows(G), state)
        except ValueError:
            break
        x = x - lr * aggregate.vector.numpy()
        if not np.isfinite(x).all() or np.abs(x).max() > 1e50:
            break
        if step % 10 == 0 or step == STEPS - 1:
            if what == "theorem 2":
                value = float(((x - truth)[: DIMENSIONS // 2] ** 2).sum())
            else:
                value = float((gradient(A, y, x, wave) ** 2).sum())
            points.append((float(step), value))
    return points


def gradient(A: NDArray[Any], y: NDArray[Any], x: NDArray[Any], wave: float) -> NDArray[Any]:
    """Mean gradient of half the squared error plus ``wave`` times the sum of the cosines of x."""
    result: NDArray[Any] = A.T @ (A @ x - y) / len(A) - wave * np.sin(x)
    return result
