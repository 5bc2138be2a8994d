"""Robust training on four ranks, one of which has wrong labels: torchrun --nproc-per-node 4 torchrun_estimator.py."""

import numpy as np
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skbgmd import BlockGMDClassifier
from skbgmd.distributed import AcrossRanks
from skbgmd.inspection import find_suspects


def main() -> None:
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16.0, y, random_state=0)
    # Each rank has data of its own. On the last one every label is wrong, on the first one those of 20 samples.
    mine = slice(rank, None, size)
    X_mine, y_mine = X_train[mine], y_train[mine].copy()
    wrong = np.arange(len(y_mine)) if rank == size - 1 else np.arange(20) if rank == 0 else np.arange(0)
    y_mine[wrong] = (y_mine[wrong] + 1) % 10

    model = BlockGMDClassifier(
        aggregator=AcrossRanks("auto", "geometric_median"),
        strength="firm",
        max_epochs=15,
        batch_size=64,
        lr=0.01,
        random_state=rank,
    )
    model.fit(X_mine, y_mine)

    # What follows is of each rank by itself, and needs no other.
    if rank == 0:
        weights = np.mean(model.history_[:, "rank_weights"], axis=0)
        suspects = find_suspects(model, 20)
        print(f"accuracy {model.score(X_test, y_test):.3f}")
        print("weights by rank", " ".join(f"{weight:.2f}" for weight in weights))
        print(f"suspects of rank 0 {sorted(suspects.tolist())}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
