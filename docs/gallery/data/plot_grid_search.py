"""
Choosing beta and the learning rate by a grid search
====================================================

The estimators work in scikit-learn's ``GridSearchCV``, also in a pipeline. Here it
tunes ``beta``, the share of gradient coordinates that judges the samples, and ``lr``,
the learning rate. The pipeline corrupts a fifth of the training rows of each fold,
and never the rows that it scores on.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import GaussianNoise

X, y = load_digits(return_X_y=True)
pipeline = make_pipeline(
    MinMaxScaler(),
    GaussianNoise(fraction=0.2, std=10.0, random_state=0),  # in fit only
    BlockGMDClassifier(max_epochs=8, random_state=0),
)
grid = {
    "blockgmdclassifier__beta": [0.03, 0.1, 0.3, 1.0],
    "blockgmdclassifier__lr": [0.003, 0.01, 0.03, 0.1],
}
search = GridSearchCV(pipeline, grid, cv=2).fit(X[:1000], y[:1000])
print(search.best_params_)
print(f"on the other samples, all clean: {search.score(X[1000:], y[1000:]):.1%}")

# %%
# With two folds, half a point of accuracy is noise. Where cells look alike, take the
# one whose neighbors are good, too.

betas, rates = grid.values()
scores = 100 * search.cv_results_["mean_test_score"].reshape(len(betas), len(rates))
_, ax = plt.subplots(figsize=(6, 3))
image = ax.imshow(scores, cmap="cividis", aspect="auto")
for (row, column), score in np.ndenumerate(scores):
    dark = score < scores.mean()
    ax.text(
        column,
        row,
        f"{score:.1f}",
        ha="center",
        va="center",
        color="white" if dark else "black",
    )
ax.set(
    xticks=range(len(rates)),
    xticklabels=rates,
    yticks=range(len(betas)),
    yticklabels=betas,
)
ax.set(xlabel="lr", ylabel="beta")
ax.spines[:].set_visible(False)
plt.colorbar(image, label="accuracy in %, two folds")
plt.show()
