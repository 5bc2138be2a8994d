"""
How much corruption does my model withstand?
============================================

A robustness curve shows a score against the share of corrupt training rows. In each
fold that share of the training rows is corrupted; the test rows stay clean.
:class:`skbgmd.inspection.RobustnessCurveDisplay` draws it for any estimator with
scikit-learn's interface, and for aggregation rules.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import BitFlip, LabelCorruption
from skbgmd.inspection import RobustnessCurveDisplay

X, y = load_digits(return_X_y=True)
X, y = X[:1000] / 16.0, y[:1000]
folds = StratifiedKFold(2, shuffle=True, random_state=0)
common = {"fractions": [0.0, 0.2, 0.4], "cv": folds, "random_state": 0}

# %%
# First, estimators on wrong labels, each of another class. The band is the standard
# deviation over the folds.

estimators = {
    "logistic regression": LogisticRegression(max_iter=1000),
    "random forest": RandomForestClassifier(50, random_state=0),
    "BlockGMDClassifier": BlockGMDClassifier(max_epochs=50, random_state=0),
}
_, ax = plt.subplots(figsize=(6, 3))
for marker, (name, estimator) in zip("os*", estimators.items(), strict=True):
    curve = RobustnessCurveDisplay.from_estimator(
        estimator,
        X,
        y,
        corruption=LabelCorruption(),
        ax=ax,
        line_kw={"label": name, "marker": marker},
        **common,
    )
    print(f"{name:20s}", curve.test_scores.mean(axis=1).round(3))
ax.set(xlabel="wrong labels in %", ylabel="accuracy on clean test data")
plt.show()

# %%
# Second, aggregation rules on gradients times -100. The same network is trained on
# groups of eight samples. With half of the rows corrupt every rule breaks down, for
# the corrupt rows are then no minority.

rules = ("mean", "coordinate_median", "geometric_median")
_, ax = plt.subplots(figsize=(6, 3))
for marker, rule in zip("o^*", rules, strict=True):
    model = BlockGMDClassifier(
        aggregator=rule, group_size=8, max_epochs=10, random_state=0
    )
    curve = RobustnessCurveDisplay.from_estimator(
        model,
        X,
        y,
        corruption=BitFlip(),
        ax=ax,
        line_kw={"label": rule, "marker": marker},
        **common,
    )
    print(f"{rule:20s}", curve.test_scores.mean(axis=1).round(3))
ax.set(xlabel="corrupt rows in %", ylabel="accuracy on clean test data")
plt.show()
