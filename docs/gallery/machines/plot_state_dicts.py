"""
I average the models of clients myself
======================================

In plain PyTorch, a federated round is a mean of what the clients send. Stack their
updates and take the geometric median instead of the mean: it stays near the majority
if a minority of the clients is broken or hostile. Tensors may be on any device; the
result is on the same one.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skbgmd import geometric_median

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
X_test, y_test = X[1200:], y[1200:]
shares = [slice(client, 1200, 10) for client in range(10)]  # of 120 samples each


def local_update(net, vector, client, generator):
    """What a client sends: how far its training moved the parameters."""
    vector_to_parameters(vector.clone(), net.parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    X_own, y_own = X[shares[client]], y[shares[client]]
    for batch in torch.randperm(120, generator=generator).split(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(X_own[batch]), y_own[batch]).backward()
        optimizer.step()
    update = parameters_to_vector(net.parameters()).detach() - vector
    return -5.0 * update if client < 3 else update  # three of them lie


def train(average, n_rounds=40):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )
    vector = parameters_to_vector(net.parameters()).detach()
    generator = torch.Generator().manual_seed(1)
    accuracies = []
    for _ in range(n_rounds):
        updates = torch.stack(
            [local_update(net, vector, client, generator) for client in range(10)]
        )
        vector = vector + average(updates)
        vector_to_parameters(vector, net.parameters())
        with torch.no_grad():
            is_right = net(X_test).argmax(dim=1) == y_test
        accuracies.append(float(is_right.float().mean()))
    return accuracies, updates


averages = {
    "mean of all ten": lambda updates: updates.mean(dim=0),
    "geometric median": geometric_median,
    "mean of the seven honest": lambda updates: updates[3:].mean(dim=0),
}
colors = ("#d55e00", "#0072b2", "black")
_, (left, right) = plt.subplots(1, 2, figsize=(7, 3), width_ratios=(2, 1))
for name, style, color in zip(averages, ("x--", "o-", ":"), colors, strict=True):
    accuracies, updates = train(averages[name])
    left.plot(range(1, 41), accuracies, style, color=color, markersize=4, label=name)
    print(f"{name:25s} {accuracies[-1]:.1%}")
    if name == "geometric median":
        weights = geometric_median(updates, return_result=True).weights
        right.bar(range(10), weights, color=["#d55e00"] * 3 + ["#0072b2"] * 7)
left.set(xlabel="round", ylabel="accuracy on clean test data", ylim=(0, 1))
left.legend(fontsize="small")
right.set(
    xlabel="client (0 to 2 lie)",
    ylabel="weight in the last round",
    xticks=range(0, 10, 3),
)
plt.show()
