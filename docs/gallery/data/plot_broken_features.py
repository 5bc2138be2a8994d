"""
Some of my sensors were broken
==============================

Some training rows hold noise instead of measurements. Their labels are right, and
nobody knows which rows they are. Plain training follows them.
:class:`skbgmd.BlockGMDClassifier` gives less weight to rows whose inputs or gradients
are far from the others', and says how much each row counted. Here a tenth, a fifth
and two fifths of the rows are broken.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import GaussianNoise

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16.0, y, random_state=0, stratify=y
)

# %%
# The noise has a hundred times the range of a feature, like that of a loose contact.
# Both networks have one layer of a hundred units and train for 50 epochs, after which
# ``MLPClassifier`` warns that it hasn't converged.
warnings.simplefilter("ignore", ConvergenceWarning)
shares = [0.0, 0.1, 0.2, 0.4]
scores = {"MLPClassifier": [], "BlockGMDClassifier": []}
for share in shares:
    noise = GaussianNoise(fraction=share, std=100.0, random_state=0)
    X_given = noise.fit_transform(X_train)
    plain = MLPClassifier(learning_rate_init=0.005, max_iter=50, random_state=0)
    robust = BlockGMDClassifier(max_epochs=50, random_state=0)
    for model in (plain, robust):
        model.fit(X_given, y_train)
        scores[type(model).__name__].append(model.score(X_test, y_test))
for name, values in scores.items():
    print(f"{name:18}", *(f"{value:.3f}" for value in values))

# %%
# ``sample_trust_`` is the mean weight of each row. One is its weight in a plain mean.
# The histogram is of the last fit, with two fifths of the rows broken.
fig, (left, right) = plt.subplots(1, 2, figsize=(7.0, 3.0))
for (name, values), style in zip(scores.items(), ("o--", "s-"), strict=True):
    left.plot(100 * np.array(shares), values, style, label=name)
left.set(xlabel="broken training rows, %", ylabel="accuracy on clean test rows")
left.legend()
trust, bins = robust.sample_trust_, np.linspace(0.0, robust.sample_trust_.max(), 25)
right.hist(trust[~noise.corrupted_], bins, alpha=0.7, label="intact rows")
right.hist(trust[noise.corrupted_], bins, alpha=0.7, label="broken rows", color="C5")
right.set(xlabel="weight in training", ylabel="rows")
right.legend()
plt.show()
