"""
Gross outliers ruin my regression
=================================

Some targets are far too large. scikit-learn's robust regressions, Huber's, RANSAC and
Theil-Sen, are *linear*: they can't follow features that interact.
:class:`skbgmd.BlockGMDRegressor` is a network, which can. It trains by a robust mean
of its samples' gradients.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_friedman1
from sklearn.linear_model import HuberRegressor, RANSACRegressor, TheilSenRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

from skbgmd import BlockGMDRegressor

rng = np.random.default_rng(0)
X, y_true = make_friedman1(1500, n_features=5, noise=0.0, random_state=0)
y = y_true + rng.normal(scale=1.0, size=1500)
gross = np.flatnonzero(rng.random(1000) < 0.3)
y[gross] += rng.exponential(scale=50.0, size=len(gross))
X_train, y_train, X_test = X[:1000], y[:1000], X[1000:]
print(f"{len(gross)} of 1000 targets are too large, the largest {y_train.max():.0f}")
print(f"without them none is above {np.delete(y_train, gross).max():.0f}")

# %%
# The linear models get splines of each feature. These fit Friedman's function except
# for one term, the sine of a product. All else is at its default.

splines = SplineTransformer(n_knots=5)
models = {
    "MLPRegressor": make_pipeline(
        StandardScaler(),
        MLPRegressor(early_stopping=True, max_iter=500, random_state=0),
    ),
    "Theil-Sen": make_pipeline(splines, TheilSenRegressor(random_state=0)),
    "RANSAC": make_pipeline(splines, RANSACRegressor(random_state=0)),
    "Huber": make_pipeline(splines, HuberRegressor(max_iter=1000)),
    "BlockGMDRegressor": make_pipeline(
        StandardScaler(), BlockGMDRegressor(random_state=0)
    ),
}
_, axes = plt.subplots(1, 5, figsize=(7, 2.1), sharex=True, sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    predicted = model.fit(X_train, y_train).predict(X_test)
    error = np.abs(predicted - y_true[1000:]).mean()
    print(f"{name:18s} mean absolute error {error:.2f}")
    ax.plot(y_true[1000:], predicted, ".", markersize=3, alpha=0.5)
    ax.axline((0, 0), slope=1.0, color="black", linewidth=0.8)
    ax.set_title(f"{name}\noff by {error:.2f}", fontsize="small")
    ax.set(xlim=(0, 30), ylim=(-5, 55), xticks=(0, 15, 30))
axes[0].set_ylabel("predicted")
axes[2].set_xlabel("true value, without noise")
plt.show()
