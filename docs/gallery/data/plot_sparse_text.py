"""
My texts are labeled by rules or by a crowd, and some labels are wrong
======================================================================

TF-IDF makes a sparse matrix of texts, with a column for each word. The classifier
takes it as it is, in a pipeline with the vectorizer; a batch at a time becomes dense.

The texts come with what is installed: paragraphs of scikit-learn's own
documentation, labeled with the part of the library that they describe.
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

# Both train for as many epochs.
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
# Whoever labels by keywords or in a hurry confuses things: 30 % of the training labels
# are made wrong. The paragraphs of a function are all in training, or all in the test.
# The strength is given here, as for data that are known to be dirty; by default
# held-out samples choose it.

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
# The texts to read first, with the labels that they came with and those predicted:

suspects = find_suspects(robust, 100)
print(f"{is_wrong[suspects].mean():.0%} of the 100 most suspicious labels are wrong")
for place, predicted in zip(
    suspects[:4], robust.predict([X_train[i] for i in suspects[:4]]), strict=True
):
    print(f"\n{y_given[place]}, rather {predicted}:\n    {X_train[place][:80]} ...")
