"""
Some of my Flower clients lie
=============================

In federated averaging the server takes the mean of what the clients send. A client
that sends nonsense, by a fault or on purpose, decides that mean. Use
:class:`skbgmd.distributed.flower.RobustFedAvg`, a subclass of Flower's ``FedAvg``,
instead: one name changes in the server's app, and nothing in the clients'.

Here three of ten clients lie. This is how a client trains. The rounds of both
strategies are in ``docs/examples/flower_rounds.py``, and a whole app in
``docs/examples/flower_app``.

.. literalinclude:: ../../examples/flower_rounds.py
   :language: python
   :start-at: def local_training
   :end-before: def accuracy
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt

# %%
# If Flower isn't installed where this page is built, the figures come from a file that
# the same script wrote elsewhere.

script = Path("../../examples/flower_rounds.py")  # from docs/gallery/machines
if find_spec("flwr"):
    command = [sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print("measured now, with flwr", found.pop("flwr"))
else:
    found = json.loads(Path("flower_rounds.json").read_text())
    print("Flower isn't installed here: as measured with flwr", found.pop("flwr"))

# %%
# Accuracy after each round, and the weights of the clients in the last round.

_, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
for name, style, color, shift in (
    ("FedAvg", "x--", "#d55e00", -0.2),
    ("RobustFedAvg", "o-", "#0072b2", 0.2),
):
    accuracies, weights = found[name]
    liars = sum(weights[:3])
    print(f"{name:13s} accuracy {accuracies[-1]:.1%}, liars' weight {liars:.2f}")
    left.plot(range(1, len(accuracies) + 1), accuracies, style, color=color, label=name)
    places = [client + shift for client in range(10)]
    right.bar(places, weights, width=0.35, color=color)
left.set(xlabel="round", ylabel="test accuracy", ylim=(0, 1))
left.legend(loc="center right")
right.set(xlabel="client (0 to 2 lie)", ylabel="last weight", xticks=range(10))
plt.show()
