"""
An aggregation rule of my own
=============================

To write an aggregation rule that weighs rows, write one method, from rows to weights.
The base class handles NaN, infinity and rows without weight. The rule then works
wherever a built-in one does: in estimators, in training loops, across ranks, in a
federation and on a block of columns.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skbgmd import BlockGMDClassifier
from skbgmd.aggregators import RowWeighting, get_aggregator
from skbgmd.corruption import AdditiveNoise, ALittleIsEnough, BitFlip, SignFlip
from skbgmd.rows import DenseRows


class NearestHalf(RowWeighting):
    """Mean of the rows that are among the nearest half of most others."""

    def __init__(self, share=0.5):
        self.share = share

    def _weigh(self, rows):
        distances = rows.gram().squared_distances()
        n_near = int(np.ceil(self.share * rows.n_rows))
        nearest = np.argsort(distances, axis=1)[:, :n_near]
        votes = np.bincount(nearest.ravel(), minlength=rows.n_rows)
        chosen = rows.weights * (votes >= np.median(votes))
        return chosen / chosen.sum()


# %%
# Try it on 30 rows of 1,000 columns. The honest ones are a common vector of ones plus
# noise of unit variance; eleven are corrupt. A rule is good if its result is as near
# the common vector as the mean of the nineteen honest rows (the dashed line).

truth, generator = 1.0, torch.Generator().manual_seed(0)
attacks = {
    "none": None,
    "times -100": BitFlip(corrupt=range(11)),
    "noise": AdditiveNoise(corrupt=range(11)),
    "sign flip": SignFlip(corrupt=range(11)),
    "a little is enough": ALittleIsEnough(corrupt=range(11)),
}
rules = {
    "mean": get_aggregator("mean"),
    "krum": get_aggregator("krum"),
    "ours": NearestHalf(),
    "geometric_median": get_aggregator("geometric_median"),
}
errors = {name: [] for name in rules}
for attack in attacks.values():
    gradients = truth + torch.randn(30, 1000, generator=generator)
    if attack is not None:
        attack.apply_(gradients, random_state=0)
    for name, rule in rules.items():
        aggregate, _ = rule(DenseRows(gradients))
        errors[name].append(float((aggregate.vector - truth).square().mean().sqrt()))

_, ax = plt.subplots(figsize=(7, 3))
for place, (name, values) in enumerate(errors.items()):
    print(f"{name:18s}", np.round(values, 2))
    ax.bar(
        np.arange(len(attacks)) + 0.2 * (place - 1.5), values, width=0.18, label=name
    )
ax.axhline(19**-0.5, color="black", linestyle="--", linewidth=0.8)
ax.set(
    yscale="log",
    ylabel="error (root mean square)",
    xticks=range(len(attacks)),
    xticklabels=attacks,
)
ax.legend(ncols=4, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.15))
plt.show()

# %%
# Pass the rule to an estimator as it is.

X, y = load_digits(return_X_y=True)
model = BlockGMDClassifier(
    aggregator=NearestHalf(),
    group_size=8,
    gradient_corruption=BitFlip(0.3),
    max_epochs=15,
    random_state=0,
)
model.fit(X[:1200] / 16.0, y[:1200])
print(f"test accuracy {model.score(X[1200:] / 16.0, y[1200:]):.1%}")
