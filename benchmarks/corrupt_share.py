"""Estimates of the share of corrupt rows against the truth, and what rules make of them in trainings.

Rule of choice, written down before any figure. Thresholds are set on seeds from 100 on, the tables have others. Of
the candidates whose mean estimate on clean rows is at most 3 % (Gaussian rows) and 5 % (digits), the one with the
least mean of ``max(0, truth - estimate)`` over attacks, shares and rows; within half a point the simplest. None was
simpler, so that those within half a point were told apart by their false alarms, which the rule didn't say. For
``fraction="auto"``: estimate or upper bound, median or largest of the last steps by the mean accuracy over attacks,
among those within a point of the rule that is told the truth on clean data.

``estimates`` makes results/corrupt_share.csv: a row for each kind of rows, attack, share and seed. ``trainings``
makes results/corrupt_share_training.csv, a training of the network of attacks.py in each row; run again it goes on
where it was. ``report`` makes the tables of docs/corrupt_share.rst.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attacks
import pandas as pd
import torch
from paper.report import DOCS, write
from resume import add_options, train_missing
from sklearn.datasets import load_digits
from tqdm import tqdm

from skbgmd.aggregators import (
    Aggregator,
    NearestNeighborMixing,
    SpectralFilter,
    TrimmedMean,
    estimate_corrupt_share,
)
from skbgmd.corruption import GRADIENT_CORRUPTIONS
from skbgmd.rows import DenseRows

RESULTS = Path(__file__).resolve().parent / "results"
ESTIMATES, TRAININGS = RESULTS / "corrupt_share.csv", RESULTS / "corrupt_share_training.csv"
ATTACKS = (
    *("bit_flip", "sign_flip", "additive_noise", "a_little_is_enough", "inner_product", "min_max", "constant_rows"),
    "mimic",
)
N_ROWS, N_COLUMNS = 34, 5000
PERCENT = (0, 5, 10, 20, 30, 40, 45)
#: Epochs after which gradients are taken, and sizes of the groups that they are of.
EPOCHS, SIZES = (0, 2, 10, 30), (8, 128)
COLUMNS = ("rows", "epochs", "attack", "percent", "seed", "truth", "estimate", "low", "high", "far", "tied", "opposed")
TRAINED_ATTACKS = ("bit_flip", "sign_flip", "a_little_is_enough", "min_max")


def gaussian(seed: int) -> torch.Tensor:
    """Rows of which mean and standard deviation are 0.1 and 1 in each column."""
    return torch.randn(N_ROWS, N_COLUMNS, generator=torch.Generator().manual_seed(seed)) + 0.1


def gradients(size: int, seed: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Gradients of groups of digits, by the number of epochs that a perceptron was trained."""
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    loss, parameters = torch.nn.CrossEntropyLoss(), list(net.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for epoch in range(max(EPOCHS) + 1):
        if epoch in EPOCHS:
            # There are fewer samples than large groups take.
            drawn = torch.randint(len(X), (N_ROWS, size), generator=generator)
            yield (
                epoch,
                torch.stack(
                    [
                        torch.cat([part.flatten() for part in torch.autograd.grad(loss(net(X[i]), y[i]), parameters)])
                        for i in drawn
                    ]
                ),
            )
        for i in torch.randperm(len(X), generator=generator).split(256):
            optimizer.zero_grad()
            loss(net(X[i]), y[i]).backward()
            optimizer.step()


def estimates(seeds: int) -> None:
    with ESTIMATES.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for seed in tqdm(range(seeds)):
            kinds = [("Gaussian", 0, gaussian(seed))]
            kinds += [(f"groups of {size}", *some) for size in SIZES for some in gradients(size, seed)]
            for kind, epochs, clean in kinds:
                for attack in ATTACKS:
                    for percent in PERCENT:
                        rows = clean.clone()
                        corrupt = GRADIENT_CORRUPTIONS[attack](percent / 100, random_state=seed).apply_(rows)
                        found = estimate_corrupt_share(DenseRows(rows))
                        shares = (round(share, 4) for share in (len(corrupt) / N_ROWS, *found))
                        values = (kind, epochs, attack, percent, seed, *shares)
                        writer.writerow(dict(zip(COLUMNS, values, strict=True)))


def rule(name: str, fraction: Any) -> Aggregator:
    made: dict[str, Any] = {
        "trimmed mean": TrimmedMean(fraction),
        "mixing, geometric median": NearestNeighborMixing(fraction=fraction),
        "spectral filter": SpectralFilter(fraction),
    }
    return made[name]


def train(attack: str, percent: int, name: str, told: str, seed: int, epochs: int) -> dict[str, Any]:
    """One row of the trainings; a rule that is told 0 % averages all rows."""
    fraction: Any = {"the truth": percent / 100, "40 %": 0.4, "auto": "auto"}[told]
    attacks.RULES["of corrupt_share.py"] = rule(name, fraction)
    row = attacks.train(attack, percent, "of corrupt_share.py", seed, epochs)
    return {key: row.get(key) for key in ("accuracy", "remark")}


def trainings(seeds: int) -> Iterator[tuple[str, int, str, str, int]]:
    for seed in range(seeds):
        for name in ("trimmed mean", "mixing, geometric median", "spectral filter"):
            for told in ("the truth", "40 %", "auto"):
                yield attacks.NO_ATTACK, 0, name, told, seed
                for attack in TRAINED_ATTACKS:
                    for percent in (20, 40):
                        yield attack, percent, name, told, seed


def table_of_estimates(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean estimates in % over seeds, and the largest error of any."""
    clean = frame[frame["percent"] == 0].drop_duplicates(["rows", "epochs", "seed"]).assign(attack="none")
    lines = []
    for (kind, epochs, attack), some in pd.concat([clean, frame[frame["percent"] > 0]]).groupby(
        ["rows", "epochs", "attack"], sort=False
    ):
        line = {"rows": kind, "epochs": epochs, "attack": attack}
        for percent in PERCENT:
            at = some[some["percent"] == percent]
            error = at["estimate"] - at["truth"]
            worst = "" if at.empty else f"{100 * error.loc[error.abs().idxmax()]:+.0f}"
            line[f"{percent} %"] = "" if at.empty else f"{100 * at['estimate'].mean():.1f} ({worst})"
        lines.append(line)
    return pd.DataFrame(lines)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and largest errors by attack, over shares, seeds and rows; and how often the bounds hold the truth."""
    frame = frame[frame["percent"] > 0]
    error = 100.0 * (frame["estimate"] - frame["truth"])
    holds = (frame["low"] <= frame["truth"]) & (frame["truth"] <= frame["high"])
    frame = frame.assign(error=error, size=error.abs(), few=(-error).clip(lower=0.0), holds=100.0 * holds)
    lines = []
    for attack, some in frame.groupby("attack", sort=False):
        line: dict[str, Any] = {"attack": attack}
        for kind, own in some.groupby("rows", sort=False):
            line[f"{kind}: mean error"] = f"{own['size'].mean():.1f}"
            line[f"{kind}: too few, at most"] = f"{max(0.0, own['few'].max()):.0f}"
        line["within bounds, %"] = f"{some['holds'].mean():.0f}"
        lines.append(line)
    return pd.DataFrame(lines)


def table_of_trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracies and the least of any seed."""
    frame = frame.assign(accuracy=frame["accuracy"].fillna(10.0)).sort_values("rule", kind="stable")
    frame["case"] = [
        f"{attack} {percent} %" if percent else "none"
        for attack, percent in zip(frame["attack"], frame["percent"], strict=True)
    ]
    lines = []
    for (name, told), some in frame.groupby(["rule", "told"], sort=False):
        by_case = some.groupby("case", sort=False)["accuracy"]
        lines.append(
            {"rule": name, "told": told, **{case: f"{own.mean():.1f} ({own.min():.1f})" for case, own in by_case}}
        )
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("estimates", "trainings", "report"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=15)
    add_options(parser, TRAININGS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    if arguments.what == "estimates":
        estimates(arguments.seeds)
    elif arguments.what == "trainings":
        train_missing(
            trainings(arguments.seeds),
            train,
            ("attack", "percent", "rule", "told", "seed", "accuracy", "remark"),
            arguments,
        )
    else:
        frame = pd.read_csv(ESTIMATES)
        write(table_of_estimates(frame), "corrupt_share", DOCS)
        write(summary(frame), "corrupt_share_summary", DOCS)
        write(table_of_trainings(pd.read_csv(TRAININGS)), "corrupt_share_training", DOCS)


if __name__ == "__main__":
    main()
