"""
Some of my Flower clients lie
=============================

In federated averaging the server takes the mean of what the clients send, and a client
that sends nonsense, by a fault or on purpose, decides that mean.
:class:`skbgmd.distributed.flower.RobustFedAvg` is a subclass of Flower's ``FedAvg``,
used in its place: in the server's app one name changes, and nothing in the clients'.

Three of ten clients lie here. This is how a client trains; the rounds of both
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
# The documentation doesn't depend on Flower. Where it isn't installed, figures come
# from a file with what the same script printed where it was.

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
# Round by round, and the weights of the clients in the last one.

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
