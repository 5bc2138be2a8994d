"""The paper's figures, drawn from our rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from skbgmd import geometric_median
from skbgmd.inspection.datasets import load_fashion_mnist

#: Colour and line of each method: Okabe and Ito's colours, the baselines dashed.
LOOKS = {
    "SGD": ("#000000", ":"),
    "CMD": ("#009e73", "-"),
    "GMD": ("#56b4e9", "-"),
    "BGMD, paper": ("#cc79a7", "-"),
    "BGMD, authors' code": ("#e69f00", "-"),
    "BGMD": ("#0b4f7d", "-"),
    "GMD, Weiszfeld in R^d": ("#56b4e9", "--"),
    "norm filter": ("#999999", "--"),
    "trimmed norms": ("#999999", ":"),
    "Krum": ("#d55e00", "--"),
    "spectral filter": ("#f0e442", "--"),
}


def pairs(text: str) -> dict[str, float]:
    """``"a:1; b:2"`` as a dict."""
    return {name: float(value) for name, value in (part.rsplit(":", 1) for part in str(text).split("; "))}


def points(text: Any) -> list[tuple[float, float]]:
    """``"0:1 10:2"`` as pairs of numbers."""
    if not isinstance(text, str):
        return []
    return [(float(x), float(y)) for x, y in (part.split(":") for part in text.split())]


def accuracy_by_time(frame: pd.DataFrame, kind: str) -> Figure:
    """Figures 3 to 5: test accuracy against seconds of training, at 0, 10, 20 and 40 %."""
    frame = frame[frame["seed"] == frame["seed"].min()]
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, percent in zip(panels, (0, 10, 20, 40), strict=True):
        rows = frame[frame["corruption"] == ("clean" if percent == 0 else f"{kind}, {percent} %")]
        for method, (color, line) in LOOKS.items():
            for text in rows.loc[rows["method"] == method, "curve"]:
                curve = points(text)
                if curve:
                    axes.plot(*zip(*curve, strict=True), line, color=color, marker=".", label=method)
        axes.set_title("no corruption" if percent == 0 else f"{kind}, {percent} %")
        axes.set_xlabel("seconds of training")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy in %")
    handles = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
    return figure


def by_beta(frame: pd.DataFrame) -> Figure:
    """Figure 1b: accuracy against the share of the coordinates."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for method, rows in frame.groupby("method", sort=False):
        rows = rows.sort_values("beta")
        axes.semilogx(rows["beta"], rows["accuracy"].fillna(10.0), "o-", label=method)
    axes.set_xlabel("share of the coordinates, β")
    axes.set_ylabel("test accuracy in %, clean data")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def costs(frame: pd.DataFrame) -> Figure:
    """Figure 1c and lemma 2, measured: time against d, and against β."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_d, by_share = figure.subplots(1, 2)
    times = pd.concat([frame, pd.DataFrame([pairs(text) for text in frame["milliseconds"]])], axis=1)
    usual = times[(times["beta"] == 0.1) & (times["eps"] == 1e-5) & (times["b"] == times["b"].mode()[0])]
    shares = times[times["d"] == times["d"].max()].sort_values("beta")
    for method, (color, line) in LOOKS.items():
        rows = usual.sort_values("d")
        by_d.loglog(rows["d"], rows[method], line, marker="o", color=color, label=method)
        if method.startswith(("BGMD", "GMD", "SGD")):
            by_share.loglog(shares["beta"], shares[method], line, marker="o", color=color, label=method)
    by_d.set_xlabel("columns d (β = 0.1)")
    by_share.set_xlabel(f"share of the columns β (d = {times['d'].max():,})")
    for axes in (by_d, by_share):
        axes.set_ylabel("milliseconds of an aggregation")
        axes.grid(alpha=0.3)
    figure.legend(*by_d.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def curves(frame: pd.DataFrame, what: str, label: str) -> Figure:
    """Theorems 1 and 2: a panel for each share of corrupt workers."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, percent in zip(panels, (0, 20, 40), strict=True):
        rows = frame[(frame["what"] == what) & (frame["parameter"] == percent)]
        for method, text in zip(rows["method"], rows["values"], strict=True):
            color, line = LOOKS[method]
            x, y = zip(*points(text), strict=True)
            axes.semilogy(x, np.clip(y, 1e-18, 1e6), line, color=color, label=method)
        axes.set_title(f"{percent} % of the workers corrupt")
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def lemma_1(frame: pd.DataFrame) -> Figure:
    """Lemma 1: what the block leaves out against its bound; figure 1a: in training, step by step."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lemma = frame[frame["what"] == "lemma 1"]
    for columns, rows in lemma.groupby("method", sort=False):
        measured = [points(text)[0] for text in rows["values"]]
        left.semilogx(*zip(*measured, strict=True), "o-", label=columns)
    bound = sorted({points(text)[1] for text in lemma["values"]})
    left.semilogx(*zip(*bound, strict=True), "k--", label="bound 1 - k/d")
    left.set_xlabel("share of the columns β")
    left.set_ylabel("expected share of the squares left out")
    left.legend()
    for beta, text in frame.loc[frame["what"].str.startswith("residual"), ["parameter", "values"]].itertuples(
        index=False
    ):
        right.plot(*zip(*points(text), strict=True), label=f"β = {beta:g}")
    right.set_xlabel("steps of training on clean data")
    right.set_ylabel("relative residual of the sampled block")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def toy() -> Figure:
    """Figure 2c and d: means of a cloud in the plane, 45 % of it corrupt."""
    rng = np.random.default_rng(0)
    X = rng.normal((2.0, 1.0), size=(100, 2))
    X[:45] = rng.normal((12.0, 14.0), size=(45, 2))
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*X[45:].T, s=12, color="#56b4e9", label="true gradients")
    axes.scatter(*X[:45].T, s=12, color="#d55e00", label="corrupt gradients, 45 %")
    for name, center, marker in (
        ("mean", X.mean(axis=0), "s"),
        ("coordinate-wise median", np.median(X, axis=0), "^"),
        ("geometric median", geometric_median(X), "*"),
        ("mean of the true gradients", X[45:].mean(axis=0), "x"),
    ):
        axes.plot(*center, marker, markersize=11, linestyle="", label=name)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def corrupt_images() -> Figure:
    """Figure 2a and b: images of Fashion-MNIST as they are, with additive and with impulse noise."""
    X, _, _, _ = load_fashion_mnist()
    images, rng = X[:4, 0], np.random.default_rng(0)
    hit = rng.random(images.shape) < 0.9
    impulse = np.where(hit, rng.integers(0, 2, size=images.shape), images)
    additive = images + 10.0 * rng.normal(size=images.shape)
    figure = Figure(figsize=(7, 5), layout="constrained")
    panels = figure.subplots(3, 4)
    for line, name, kind in zip(
        panels, ("original", "additive, N(0, 100)", "impulse, 90 %"), (images, additive, impulse), strict=True
    ):
        for axes, image in zip(line, kind, strict=True):
            axes.imshow(image, cmap="gray")
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name)
    return figure


Draw = Callable[[pd.DataFrame], Figure]
#: Figures by the experiment whose rows they are of.
FIGURES: dict[str, dict[str, Draw]] = {
    "homogeneous": {
        "figure3_impulse": lambda frame: accuracy_by_time(frame, "feature, impulse"),
        "figure4_bit_flip": lambda frame: accuracy_by_time(frame, "gradient, bit flip"),
        "figure5_backdoor": lambda frame: accuracy_by_time(frame, "label, backdoor"),
    },
    "betas": {"figure1b_beta": by_beta},
    "costs": {"figure1c_costs": costs},
    "theory": {
        "figure1a_lemma1": lemma_1,
        "theorem1": lambda frame: curves(frame, "theorem 1", "squared gradient norm"),
        "theorem2": lambda frame: curves(frame, "theorem 2", "squared distance to the optima"),
    },
}
