"""
My own convolutional network, on images with wrong labels
=========================================================

:class:`skbgmd.BlockGMDClassifier` trains any PyTorch module instead of its perceptron.
Pass a class, with ``module__`` parameters, or an instance. Here it is a small
convolutional network on Fashion-MNIST, where 30 % of the labels are wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import avg_pool2d, max_pool2d

from skbgmd import BlockGMDClassifier
from skbgmd.corruption import corrupt_labels
from skbgmd.inspection import SuspectGridDisplay, find_suspects
from skbgmd.inspection.datasets import load_fashion_mnist

try:
    X_train, y_train, X_test, y_test = load_fashion_mnist()
    X_train, X_test = (
        avg_pool2d(torch.from_numpy(X[:1500]), 2).numpy() for X in (X_train, X_test)
    )
    y_train, y_test = y_train[:1500], y_test[:1500]
    names = "top trousers pullover dress coat sandal shirt sneaker bag boot"
    names = np.array(names.split())
    print("Fashion-MNIST, 1,500 images of 14 x 14 pixels")
except FileNotFoundError:
    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).reshape(-1, 1, 8, 8).astype(np.float32)
    X_train, y_train, X_test, y_test = X[:1200], y[:1200], X[1200:], y[1200:]
    names = np.arange(10).astype(str)
    print("The files of Fashion-MNIST aren't on this machine: digits in their place")

y_given, is_wrong = corrupt_labels(
    names[y_train], kind="pair", fraction=0.3, random_state=0
)

# %%
# Inputs are images of shape (channels, height, width), float32; outputs are logits.


class Net(torch.nn.Module):
    def __init__(self, channels=8):
        super().__init__()
        self.first = torch.nn.Conv2d(1, channels, 3, padding=1)
        self.second = torch.nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.last = torch.nn.LazyLinear(10)

    def forward(self, X):
        X = max_pool2d(torch.relu(self.first(X)), 2)
        X = max_pool2d(torch.relu(self.second(X)), 2)
        return self.last(X.flatten(1))


# %%
# It is known that labels are wrong, so the strength is given. By default held-out
# samples choose it.

settings = {
    "module__channels": 8,
    "max_epochs": 30,
    "batch_size": 128,
    "lr": 0.01,
    "random_state": 0,
}
trainings = {"plain": {"aggregator": "mean"}, "robust": {"strength": "strict"}}
for name, options in trainings.items():
    model = BlockGMDClassifier(Net, **options, **settings).fit(X_train, y_given)
    print(
        f"{name:6s} {model.score(X_test, names[y_test]):.1%} of the clean test images"
    )

# %%
# The images to check first are those that the robust training fits worst.

suspects = find_suspects(model, 200)
print(f"{is_wrong[suspects].mean():.1%} of the first 200 suspects are labeled wrongly")
SuspectGridDisplay.from_estimator(model, X_train, y_given, n=12)
plt.show()
