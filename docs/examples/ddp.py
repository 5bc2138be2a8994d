"""Train on several ranks, of which the last one is hostile, and outvote it.

Run it with ``torchrun --nproc-per-node 4 docs/examples/ddp.py``. With ``--rule mean``, which is DDP's own, the
training diverges, and all ranks raise an error.
"""

import argparse

import numpy as np
import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.parallel import DistributedDataParallel

from skbgmd.distributed import RobustHook, robust_hook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", default="geometric_median", help="name of an aggregator")
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(torch.tensor(X / 16).float(), torch.tensor(y), random_state=0)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    ddp = DistributedDataParallel(model)
    hook = RobustHook(arguments.rule)
    ddp.register_comm_hook(hook, robust_hook)  # the one line

    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(arguments.steps):
        batch = torch.randint(len(X), (64,), generator=generator)
        loss = torch.nn.functional.cross_entropy(ddp(X[batch]), y[batch])
        if rank == size - 1:
            loss = -10.0 * loss  # it climbs where the others descend
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    if rank == 0:
        with torch.no_grad():
            accuracy = (model(X_test).argmax(dim=1) == y_test).double().mean()
        weights = np.mean([weights for weights in hook.history if weights is not None], axis=0)
        print(f"test accuracy {accuracy:.1%}")
        for number, weight in enumerate(weights):
            print(f"rank {number}: mean weight {weight:.3f}")
    dist.barrier()  # nobody leaves while others are still at work
    del ddp
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
