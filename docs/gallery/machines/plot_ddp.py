"""
One of my ranks sends wrong gradients
=====================================

DistributedDataParallel averages the gradients of all ranks, so one broken or hostile
rank decides where the training goes. :class:`skbgmd.distributed.RobustHook` replaces
that average, in one line and for as many bytes. Here four processes on this machine
train, and the last one climbs where the others descend. This is the whole training of
a rank; the script is ``docs/examples/ddp_rules.py``.

.. literalinclude:: ../../examples/ddp_rules.py
   :language: python
   :start-at: def train
   :end-before: def work
"""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

script = Path("../../examples/ddp_rules.py")  # from docs/gallery/machines
command = [sys.executable, script]
done = subprocess.run(command, capture_output=True, text=True, check=True)
found = json.loads(done.stdout)
for rule, measured in found.items():
    weights = " ".join(f"{weight:.2f}" for weight in measured["weights"])
    print(f"{rule:18s} accuracy {measured['accuracies'][-1]:.1%}, weights {weights}")

# %%
# All ranks compute the same weights from the same gradients, so they take the same
# step. ``hook.weights_`` has the weights of the last step, and ``on_step`` gets those
# of each step. Under ``torchrun`` the line is the same: ``docs/examples/ddp.py``.

_, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
for rule, style, color, shift in zip(
    found, ("x--", "o-"), ("#d55e00", "#0072b2"), (-0.2, 0.2), strict=True
):
    accuracies, weights = found[rule]["accuracies"], found[rule]["weights"]
    steps = range(10, 10 * len(accuracies) + 1, 10)
    left.plot(steps, accuracies, style, color=color, label=rule)
    right.bar([rank + shift for rank in range(4)], weights, width=0.35, color=color)
left.set(xlabel="step", ylabel="test accuracy", ylim=(0, 1))
left.legend(fontsize="small", loc="center right")
right.set(xlabel="rank (3 is hostile)", ylabel="mean weight", xticks=range(4))
plt.show()
