"""
My mean is wrong because of a few bad points
============================================

A mean follows its outliers, however far away they are. The geometric median, the
point with the smallest sum of distances to all others, stays with the majority: fewer
than half of the points can't drag it away. :func:`skbgmd.geometric_median` finds it,
and proves how close its sum of distances is to the smallest possible.
"""

import matplotlib.pyplot as plt
import numpy as np

from skbgmd import geometric_median

rng = np.random.default_rng(0)
good = rng.normal(size=(70, 2))
bad = rng.normal(loc=(9.0, 5.0), scale=0.5, size=(30, 2))
X = np.concatenate([good, bad])

result = geometric_median(X, tol=1e-9, return_result=True)
print("mean            ", X.mean(axis=0).round(2))
print("geometric median", result.median.round(2))
print("weight of the 30 bad points", result.weights[70:].sum().round(3))

# %%
# The median is a weighted mean of the points, ``result.weights @ X``. The weight of a
# point is proportional to one over its distance. You needn't trust the solver: with
# the median comes a proved lower bound on the sum of distances of *any* point. ``gap``
# is how far the median's sum is above that bound, as a share of it.

assert np.allclose(result.median, result.weights @ X)
print(f"the sum of distances is proved to be within {result.gap:.1e} of the smallest")

# %%
# Move the bad points farther and farther away. The mean follows, the medians stay.

distances = np.logspace(0.0, 3.0, 10)
errors = {"mean": [], "coordinate-wise median": [], "geometric median": []}
for distance in distances:
    moved = np.concatenate([good, distance * bad / np.linalg.norm(bad.mean(axis=0))])
    errors["mean"].append(np.linalg.norm(moved.mean(axis=0)))
    errors["coordinate-wise median"].append(np.linalg.norm(np.median(moved, axis=0)))
    errors["geometric median"].append(np.linalg.norm(geometric_median(moved)))

_, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2))
left.scatter(
    *X.T, s=20 + 2500 * result.weights, alpha=0.4, label="points, size by weight"
)
left.plot(
    *X.mean(axis=0), "X", color="#d55e00", markersize=10, linestyle="none", label="mean"
)
left.plot(
    *result.median,
    "*",
    color="black",
    markersize=13,
    linestyle="none",
    label="geometric median",
)
left.set(ylim=(-3, 10), title="30 of 100 points are bad")
left.legend(loc="upper left", fontsize="small")
for (name, values), style in zip(errors.items(), ("X-", "s--", "*-"), strict=True):
    color = {"mean": "#d55e00", "geometric median": "black"}.get(name)
    right.loglog(distances, values, style, color=color, label=name)
right.set(
    xlabel="distance of the bad points",
    ylabel="distance of the answer",
    title="Both from the true mean",
)
right.legend(fontsize="small")
plt.show()
