"""
How strongly should outliers be distrusted, and who decides?
============================================================

The training data alone can't tell hard samples from wrong ones. Held-out samples can,
even though some of their labels are wrong: these lower the score of all candidates
alike, so the better one is still ahead. With ``strength="auto"``, the default,
:class:`skbgmd.BlockGMDClassifier` tries strengths on a third of the samples, and takes
a stronger one than the mildest only if it is clearly ahead.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import corrupt_labels
from skbgmd.inspection import StrengthDisplay, TrainingHistoryDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16.0, y, random_state=0, stratify=y
)
dirty, _ = corrupt_labels(y_train, fraction=0.3, random_state=0)

models = {}
for name, labels in {"clean labels": y_train, "30 % wrong labels": dirty}.items():
    models[name] = BlockGMDClassifier(max_epochs=60, random_state=0)
    models[name].fit(X_train, labels)
    accuracy = models[name].score(X_test, y_test)
    print(f"{name}: {models[name].strength_}, test accuracy {accuracy:.1%}")

# %%
# The evidence for the choice: how much each candidate gains over the mildest in
# balanced accuracy on held-out samples, with its standard error.

_, axes = plt.subplots(1, 2, figsize=(7, 2.6))
for ax, (name, model) in zip(axes, models.items(), strict=True):
    StrengthDisplay.from_estimator(model, ax=ax)
    ax.set(title=name, xlabel="gain in percentage points")
plt.show()

# %%
# The trainings on all samples. With wrong labels the loss rises: the network refuses
# to learn them, and becomes surer and surer that they are wrong.

_, axes = plt.subplots(1, 3, figsize=(7, 2.8))
for name, model in models.items():
    TrainingHistoryDisplay.from_estimator(model, ax=axes, name=name)
plt.show()

# %%
# The mean weight of each sample in the training on wrong labels.

_, ax = plt.subplots(figsize=(5, 2.6))
trust, is_wrong = models["30 % wrong labels"].sample_trust_, dirty != y_train
ax.hist(
    [trust[~is_wrong], trust[is_wrong]],
    bins=20,
    stacked=True,
    color=["#0072b2", "#d55e00"],
)
ax.set(xlabel="trust (mean weight)", ylabel="samples")
ax.legend(["right labels", "wrong labels"], fontsize="small")
plt.show()
