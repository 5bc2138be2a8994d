"""
My texts are labeled by rules or by a crowd, and some labels are wrong
======================================================================

Train on sparse TF-IDF features of texts and find the wrong labels. The classifier
takes the sparse matrix, in a pipeline with the vectorizer; it makes one batch at a
time dense.

The texts are paragraphs of scikit-learn's own documentation, labeled with the part of
the library that they describe.
"""

import re
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupShuffleSplit
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.discovery import all_estimators, all_functions

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import corrupt_labels
from skbgmd.inspection import find_suspects

# Both train for the same number of epochs.
warnings.simplefilter("ignore", ConvergenceWarning)
PARTS = ["cluster", "ensemble", "linear_model", "metrics"]

texts, labels, sources = [], [], []
for name, thing in all_estimators() + all_functions():
    part = thing.__module__.split(".")[1]
    for paragraph in re.split(r"\n\s*\n", thing.__doc__ or "") if part in PARTS else ():
        if len(paragraph.split()) >= 20 and ">>>" not in paragraph:
            texts.append(" ".join(paragraph.split()))
            labels.append(part)
            sources.append(name)
print(f"{len(texts)} paragraphs of {len(set(sources))} classes and functions")

# %%
# 30 % of the training labels are made wrong, as when someone labels by keywords or in
# a hurry. All paragraphs of a function are either in the training or in the test data.
# The strength is given, as for data that are known to be dirty. By default held-out
# samples choose it.

train, test = next(
    GroupShuffleSplit(test_size=0.3, random_state=0).split(texts, groups=sources)
)
X_train, X_test = [texts[i] for i in train], [texts[i] for i in test]
y_test = [labels[i] for i in test]
y_given, is_wrong = corrupt_labels(
    [labels[i] for i in train], fraction=0.3, random_state=0
)


def with_words(classifier):
    """Let a classifier see the words of texts."""
    words = TfidfVectorizer(
        max_features=500, sublinear_tf=True, stop_words="english", dtype=np.float32
    )
    return make_pipeline(words, classifier)


plain = with_words(MLPClassifier(max_iter=15, learning_rate_init=0.005, random_state=0))
robust = with_words(
    BlockGMDClassifier(strength="strict", max_epochs=15, random_state=0)
)
for model in (plain, robust):
    model.fit(X_train, y_given)
    print(f"{type(model[-1]).__name__:<20}{model.score(X_test, y_test):.1%}")

# %%
# Read these texts first. Each has its given label and the predicted one:

suspects = find_suspects(robust, 100)
print(f"{is_wrong[suspects].mean():.0%} of the 100 most suspicious labels are wrong")
for place, predicted in zip(
    suspects[:4], robust.predict([X_train[i] for i in suspects[:4]]), strict=True
):
    print(f"\n{y_given[place]}, rather {predicted}:\n    {X_train[place][:80]} ...")
