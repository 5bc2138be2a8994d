"""The runner of the paper's experiments: killed at any moment, it goes on where it was."""

from __future__ import annotations

import csv
import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def paper(monkeypatch):
    """Modules of the experiments by name; they are scripts, not a part of the package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"paper.{name}")


def command(output):
    return [sys.executable, "-m", "paper.run", "--protocol", "tiny", "--experiment", "grid", "--output", str(output)]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path, paper):
    path = tmp_path / "grid.csv"
    enough = int(np.random.default_rng().integers(2, 12))
    process = subprocess.Popen(command(tmp_path), cwd=BENCHMARKS, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and (not path.exists() or len(path.read_text().splitlines()) <= enough):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows_of(path)
    assert len(before) >= enough
    with path.open("a") as file:
        file.write("perceptron,64,dig")  # as a line looks that was being written
    subprocess.run(command(tmp_path), cwd=BENCHMARKS, check=True, stderr=subprocess.DEVNULL)
    after = rows_of(path)
    assert after[: len(before)] == before
    run, cases = paper("run"), paper("cases")
    keys = [tuple(row[name] for name in run.KEY) for row in after]
    assert keys == [tuple(run.key_of(case).values()) for case in cases.grid(cases.TINY)]
    assert run.todo("grid", cases.TINY, tmp_path) == []


def test_the_best_rate_is_taken(paper):
    run, cases = paper("run"), paper("cases")
    row = {"network": "LeNet", "width": "64", "method": "SGD"}
    rates = run.best_rates(
        [
            {**row, "lr": "0.1", "accuracy": ""},
            {**row, "lr": "0.05", "accuracy": "80.5"},
            {**row, "lr": "0.02", "accuracy": "70"},
        ]
    )
    case = cases.homogeneous(cases.SHORT)[0]
    assert run.with_rate(case, rates).lr == 0.05
    with pytest.raises(SystemExit, match="run the experiment `grid` first"):
        run.with_rate(case, {})


def test_table_2_has_the_papers_rows(paper):
    cases, report = paper("cases"), paper("report")
    runs = cases.homogeneous(cases.FULL) + cases.heterogeneous(cases.FULL)
    named = {(run.setting.network, run.corruption.name) for run in runs if run.corruption.percent != 10}
    assert named == set(report.PRINTED)
    assert len({tuple(paper("run").key_of(run).values()) for run in runs}) == len(runs)


@pytest.mark.parametrize(
    ("kind", "changed"), [(("feature", "impulse"), "X"), (("feature", "additive"), "X"), (("label", "backdoor"), "y")]
)
def test_whole_groups_are_corrupt(paper, kind, changed):
    training, cases = paper("training"), paper("cases")
    with torch.random.fork_rng(devices=[]):
        net = training.CorruptGroups(
            torch.nn.Linear(12, 10),
            corruption=cases.Corruption(*kind, 40),
            criterion=torch.nn.CrossEntropyLoss,
            group_size=4,
            random_state=0,
        ).initialize()
    X, y = torch.linspace(0.1, 0.9, 240).view(20, 12), torch.zeros(20, dtype=torch.int64)
    batch = net._corrupt(training.Batch(X, y, np.arange(20)))
    mask = (batch[0] != X).any(dim=1) if changed == "X" else batch[1] == training.TARGET
    assert mask.view(5, 4).all(dim=1).sum() == 2
    assert mask.sum() == 8
    assert torch.equal(batch[1], y) or changed == "y"


def test_other_data_are_refused(paper):
    data = paper("data")
    with pytest.raises(ValueError, match="files of fashion-mnist must be the published ones"):
        data.check("fashion-mnist", (np.zeros((2, 1, 28, 28)), np.zeros(2), np.zeros((1, 1, 28, 28)), np.zeros(1)))


def test_what_breaks_down_and_what_does_not(paper):
    aggregation = paper("aggregation")

    def error(method, percent):
        return float(aggregation.breakdown(method, "bit flip", percent, device="cpu")["error"])

    assert error("SGD", 10) > 2.0
    assert error("BGMD, paper", 10) > 2.0
    assert error("BGMD", 45) < 0.2


def test_the_bound_of_lemma_1(paper):
    for columns in ("equal columns", "power law", "few columns"):
        (_, left), (_, bound) = paper("theory").lemma_1(columns, 0.05)
        assert left <= bound + 0.01


def test_theorem_2(paper):
    theory = paper("theory")
    first, *_, last = theory.descent("theorem 2", "BGMD", 40)
    assert last[1] < 1e-6 * first[1]
    assert theory.descent("theorem 2", "BGMD, paper", 20)[-1][1] > 1e6
