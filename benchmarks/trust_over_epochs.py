"""Draw what is remembered of good, rare and wrong samples over the epochs: docs/images/trust_over_epochs.png.

Digits of which five are rare, with 20 % of the labels of the next class: the trust that weighs samples in later epochs,
relative to the median of the class, its median and quartiles.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from dirty.data import split
from measure import environment
from skorch.callbacks import Callback

from skbgmd import BlockGMDClassifier

ROOT = Path(__file__).parents[1]
SEEDS, EPOCHS, WRONG = range(5), 100, 0.2
KINDS = {"good": "#0b4f7d", "good, of a rare class": "#009e73", "wrong label": "#d55e00"}


class Watch(Callback):
    """Keeps the prior weights of the samples in each epoch."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def on_epoch_end(self, net, dataset_train=None, **kwargs) -> None:
        weights = net._trust_.weights
        # Before there are some all samples count alike.
        self.seen.append(np.ones(len(dataset_train)) if weights is None else weights[: len(dataset_train)].copy())


def epochs_of(seed: int, strength: str) -> pd.DataFrame:
    """Prior weight of each sample in each epoch, with its kind."""
    parts = split("digits with rare classes", seed)
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(parts.y)) < WRONG
    y = np.where(wrong, (parts.y + 1) % 10, parts.y)
    watch = Watch()
    BlockGMDClassifier(strength=strength, max_epochs=EPOCHS, callbacks=[watch], random_state=seed).fit(parts.X, y)
    rare = np.isin(parts.y, np.flatnonzero(np.bincount(parts.y) < 0.5 * np.bincount(parts.y).max()))
    kinds = np.where(wrong, "wrong label", np.where(rare, "good, of a rare class", "good"))
    return pd.concat(
        pd.DataFrame({"epoch": number, "kind": kinds, "weight": weights, "seed": seed})
        for number, weights in enumerate(watch.seen, 1)
    )


def main() -> None:
    rows = pd.concat(epochs_of(seed, "strict") for seed in SEEDS)
    quartiles = rows.groupby(["kind", "epoch"])["weight"].quantile([0.25, 0.5, 0.75]).unstack()
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for kind, color in KINDS.items():
        of_kind = quartiles.loc[kind]
        # Good samples of all classes are near one in the end.
        style = "--" if "rare" in kind else "-"
        axes.plot(of_kind.index, of_kind[0.5], style, color=color, label=kind)
        axes.fill_between(of_kind.index, of_kind[0.25], of_kind[0.75], color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="epoch", ylabel="weight by remembered trust", ylim=(-0.02, 1.05))
    axes.legend(loc="center right")
    figure.savefig(ROOT / "docs" / "images" / "trust_over_epochs.png", dpi=110)
    table = quartiles.round(4).reset_index()
    table.assign(**environment()).to_csv(ROOT / "benchmarks" / "results" / "trust_over_epochs.csv", index=False)


if __name__ == "__main__":
    main()
