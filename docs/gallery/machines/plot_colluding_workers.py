"""
My workers collude, and hide in the noise
=========================================

Workers that know the honest gradients can agree on a shift so small that no single
step gives them away. In each step they push in the same direction. Over many steps
noise averages out, and the shift doesn't. :class:`skbgmd.aggregators.WorkerMemory`
uses that: it remembers how the workers' gradients relate to each other, in 2 n²
numbers.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector

from skbgmd.aggregators import get_aggregator
from skbgmd.corruption import ALittleIsEnough, Simplex
from skbgmd.rows import DenseRows

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
X_test, y_test = X[1200:], y[1200:]
N_WORKERS, N_HOSTILE, N_STEPS = 34, 13, 150

torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Linear(64, 50), torch.nn.ReLU(), torch.nn.Linear(50, 10)
)
start = parameters_to_vector(net.parameters()).detach()
sizes = [parameter.numel() for parameter in net.parameters()]


def predict(vector, X):
    parameters = dict(net.named_parameters())
    for name, part in zip(parameters, vector.split(sizes), strict=True):
        parameters[name] = part.view(parameters[name].shape)
    return functional_call(net, parameters, (X,))


def loss(vector, X, y):
    return torch.nn.functional.cross_entropy(predict(vector, X), y)


gradients_of_workers = vmap(grad(loss), in_dims=(None, 0, 0))  # of a batch each


def train(rule, attack):
    vector, state, accuracies, trust = start.clone(), None, [], []
    optimizer = torch.optim.Adam([vector], lr=0.005)
    generator = torch.Generator().manual_seed(0)
    for step in range(N_STEPS):
        batches = torch.randint(1200, (N_WORKERS, 8), generator=generator)
        rows = gradients_of_workers(vector, X[batches], y[batches])
        attack.apply_(rows, random_state=step)
        aggregate, state = rule(DenseRows(rows), state)
        vector.grad = aggregate.vector
        optimizer.step()
        is_right = predict(vector, X_test).argmax(dim=1) == y_test
        accuracies.append(float(is_right.float().mean()))
        trust.append(aggregate.weights[:N_HOSTILE].sum())
    return accuracies, trust


# %%
# Thirteen of 34 workers are hostile, by one of two attacks. "A little is enough"
# (ALIE) sends the honest mean, shifted by a part of the honest spread. A simplex hides
# the same shift in rows that look unrelated to each other.

attacks = {
    "ALIE": ALittleIsEnough(z=1.0, corrupt=range(N_HOSTILE)),
    "simplex": Simplex(corrupt=range(N_HOSTILE)),
}
rules = ("mean", "geometric_median", "krum", "worker_memory")
_, axes = plt.subplots(2, 2, figsize=(7, 4.5), sharex=True, sharey="row")
for column, (attack_name, attack) in enumerate(attacks.items()):
    for rule, style in zip(rules, ("--", "-.", ":", "-"), strict=True):
        accuracies, trust = train(get_aggregator(rule), attack)
        axes[0, column].plot(accuracies, style, label=rule)
        axes[1, column].plot(trust, style)
        end, liars = np.mean(accuracies[-20:]), np.mean(trust[-20:])
        print(
            f"{attack_name:8s}{rule:17s} accuracy {end:.1%}, liars' weight {liars:.2f}"
        )
    axes[0, column].set_title(attack_name)
    axes[1, column].set_xlabel("step")
axes[0, 0].set(ylabel="test accuracy", ylim=(0, 1))
axes[1, 0].set(ylabel="weight of the liars", ylim=(-0.05, 1.05))
axes[0, 1].legend(fontsize="small", ncols=2)
plt.show()
