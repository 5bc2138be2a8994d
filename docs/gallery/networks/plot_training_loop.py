"""
I write my training loop myself
===============================

In a plain PyTorch loop one line changes: instead of ``losses.mean().backward()``, pass
the losses of the samples to :func:`skbgmd.robust_backward`. It fills the parameters'
``grad`` with a robust mean of the samples' gradients. Any optimizer can use that.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from skbgmd import robust_backward
from skbgmd.ghost import GradientRecorder

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
X_train, y_train, X_test, y_test = X[:1200].clone(), y[:1200], X[1200:], y[1200:]

# A fifth of the rows are broken: huge features, as from a sensor with another unit.
generator = torch.Generator().manual_seed(0)
broken = torch.rand(1200, generator=generator) < 0.2
X_train[broken] = 30.0 * torch.randn(int(broken.sum()), 64, generator=generator)


def train(robust, n_epochs=15):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    recorder, state = GradientRecorder(net), None
    accuracies, weights = [], torch.zeros(1200)
    for _ in range(n_epochs):
        for batch in torch.randperm(1200).split(60):
            optimizer.zero_grad()
            with recorder:  # gradients of all samples from one backward pass
                losses = torch.nn.functional.cross_entropy(
                    net(X_train[batch]), y_train[batch], reduction="none"
                )
            if robust:
                # The one line; recorder takes the place of net.parameters().
                aggregate, state = robust_backward(losses, recorder, "auto", state)
                weights[batch] = torch.from_numpy(60 * aggregate.weights).float()
            else:
                losses.mean().backward()
            optimizer.step()
        with torch.no_grad():
            is_right = net(X_test).argmax(dim=1) == y_test
        accuracies.append(float(is_right.float().mean()))
    return accuracies, weights


plain, _ = train(robust=False)
robust, weights = train(robust=True)
print(f"loss.backward():   {plain[-1]:.1%} of the clean test images")
print(f"robust_backward(): {robust[-1]:.1%}")

# %%
# ``aggregate.weights`` says how much each sample counted. Here 1 is its weight in a
# plain mean.

_, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
left.plot(range(1, 16), plain, "x--", color="#d55e00", label="losses.mean().backward()")
left.plot(
    range(1, 16), robust, "o-", color="#0072b2", label="robust_backward(losses, ...)"
)
left.set(xlabel="epoch", ylabel="accuracy on clean test data", ylim=(0, 1))
left.legend(fontsize="small", loc="lower right")
right.hist(
    [weights[~broken].numpy(), weights[broken].numpy()],
    bins=20,
    stacked=True,
    color=["#0072b2", "#d55e00"],
)
right.set(xlabel="weight of a sample in the last epoch", ylabel="samples")
right.legend(["sound", "broken"])
plt.show()
