"""Train on four ranks, of which the last one is hostile, by DDP's own average and by a robust rule.

``python docs/examples/ddp_rules.py`` starts the four processes itself, and prints a line of JSON: for each rule the
test accuracies after each tenth step, and the mean weights of the ranks.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from skbgmd.distributed import RobustHook, robust_hook

N_RANKS, N_STEPS = 4, 100


def train(rank: int, rule: str | None) -> dict[str, list[float]]:
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(torch.tensor(X / 16).float(), torch.tensor(y), random_state=0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    ddp = DistributedDataParallel(model)
    weights = [np.full(N_RANKS, 1 / N_RANKS)]
    if rule is not None:
        ddp.register_comm_hook(RobustHook(rule, on_step=weights.append), robust_hook)  # the one line

    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(rank)
    accuracies = []
    for step in range(N_STEPS):
        batch = torch.randint(len(X), (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(ddp(X[batch]), y[batch])
        if rank == N_RANKS - 1:
            loss = -10.0 * loss  # it climbs where the others descend
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                accuracies.append(float((model(X_test).argmax(dim=1) == y_test).double().mean()))
    dist.barrier()  # nobody leaves while others are still at work
    return {"accuracies": accuracies, "weights": np.mean(weights[1:] or weights, axis=0).tolist()}


def work(rank: int, store: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all on this machine
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=N_RANKS)
    found = {rule or "DDP's own average": train(rank, rule) for rule in (None, "geometric_median")}
    if rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        start_processes(work, (str(Path(folder) / "store"),), nprocs=N_RANKS, start_method="fork")
