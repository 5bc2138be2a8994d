"""
I have a skorch net, and want it robust
=======================================

You needn't rewrite a skorch net, its callbacks, optimizer and settings. Pass the net
to :class:`skbgmd.BlockGMDClassifier` like a module: it keeps the settings and replaces
the training step. For a new net use :class:`skbgmd.RobustNeuralNetClassifier`, which
is a skorch net itself.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring, LRScheduler

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import GaussianNoise

X, y = load_digits(return_X_y=True)
X = (X / 16.0).astype(np.float32)
broken_sensors = GaussianNoise(fraction=0.3, std=10.0, random_state=0)
X_train = broken_sensors.fit_transform(X[:1000])
y_train, X_test, y_test = y[:1000], X[1000:], y[1000:]


def accuracy_on_test(net, X=None, y=None):
    return net.score(X_test, y_test)


scoring = EpochScoring(
    accuracy_on_test,
    name="test",
    on_train=True,
    lower_is_better=False,
    use_caching=False,
)
schedule = LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=30)
net = NeuralNetClassifier(
    torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    ),
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=0.9,
    lr=0.05,
    max_epochs=30,
    batch_size=64,
    train_split=None,
    callbacks=[scoring, schedule],
    verbose=0,
)

# %%
# The robust estimator trains a copy of the net, with its callbacks and schedule.

robust = BlockGMDClassifier(net, group_size=1, random_state=0).fit(X_train, y_train)
torch.manual_seed(0)
net.fit(X_train, y_train)
print(f"skorch      {net.score(X_test, y_test):.1%}")
print(f"made robust {robust.score(X_test, y_test):.1%}")

# %%
# Both have skorch's history.

_, ax = plt.subplots(figsize=(6, 3))
ax.plot(
    100 * np.array(net.history[:, "test"]), "--", color="#d55e00", label="skorch net"
)
ax.plot(
    100 * np.array(robust.net_.history[:, "test"]),
    color="#0072b2",
    label="the same, made robust",
)
ax.set(
    xlabel="epoch",
    ylabel="accuracy on clean test data in %",
    title="30 % of the training rows with noise of std 10",
)
ax.legend()
plt.show()
