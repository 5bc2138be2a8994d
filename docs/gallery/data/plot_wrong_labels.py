"""
Some of my labels are wrong, and I don't know which
===================================================

Annotators confuse classes, and a network learns their mistakes by heart.
:class:`skbgmd.BlockGMDClassifier` has scikit-learn's interface and distrusts samples
that don't fit in with the others. Held-out samples choose how strongly. Afterwards
:func:`skbgmd.inspection.find_suspects` lists the samples to check first.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import corrupt_labels
from skbgmd.inspection import SuspectGridDisplay, find_suspects

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16.0, y, random_state=0, stratify=y
)
y_given, is_wrong = corrupt_labels(y_train, fraction=0.2, kind="pair", random_state=0)
print(f"{is_wrong.sum()} of {len(y_given)} labels are those of the next digit")

# %%
# Both classifiers train the same network, one hidden layer of 100 units, on the same
# labels. The test labels are clean.

plain = MLPClassifier(learning_rate_init=0.005, max_iter=1000, random_state=0).fit(
    X_train, y_given
)
robust = BlockGMDClassifier(lr=0.005, max_epochs=100, random_state=0).fit(
    X_train, y_given
)
print(f"MLPClassifier      {plain.score(X_test, y_test):.1%}")
print(f"BlockGMDClassifier {robust.score(X_test, y_test):.1%}")
print("strength chosen:", robust.strength_)

# %%
# Which labels should a person check? If you give no number, ``find_suspects``
# estimates how many there are.

suspects = find_suspects(robust)
print(f"{len(suspects)} suspects, {is_wrong[suspects].mean():.1%} of them wrong")
found = is_wrong[suspects].sum() / is_wrong.sum()
print(f"{found:.1%} of the wrong labels are among them")

SuspectGridDisplay.from_estimator(robust, X_train, y_given, image_shape=(8, 8), n=12)
plt.show()
