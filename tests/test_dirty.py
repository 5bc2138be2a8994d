"""The table of clean and dirty data: its sets, its dirt, what trains on them, the runner and the rule."""

from __future__ import annotations

import argparse
import csv
import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Benchmarks are scripts, not a part of the package; cleanlab seeds NumPy's global generator."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = np.random.get_state()
    yield
    np.random.set_state(before)


def module(name):
    return importlib.import_module(name)


def test_sets_are_split_and_standardised():
    data = module("dirty.data")
    assert len(data.CLASSES) >= 14
    assert len(data.TARGETS) >= 8
    for name in data.NAMES:
        X, y, X_test, y_test = data.split(name, 3)
        assert X.dtype == X_test.dtype == np.float32, name
        assert len(X) == len(y) > 2.9 * len(X_test) == 2.9 * len(y_test), name
        assert X.shape[1:] == X_test.shape[1:], name
        np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=1e-4, err_msg=name)
        assert np.isin(X.std(axis=0).round(3), (0.0, 1.0)).all(), name
        if name in data.CLASSES:
            shares = [np.bincount(labels) / len(labels) for labels in (y, y_test)]
            np.testing.assert_allclose(*shares, atol=0.03, err_msg=name)
        else:
            assert y.std() == pytest.approx(1.0), name
        again = data.split(name, 3)
        assert np.array_equal(X, again.X), name
        assert np.array_equal(y_test, again.y_test), name


def test_what_makes_sets_hard():
    data = module("dirty.data")
    X, y = data.bag_of_words(0)
    assert 1 / 3 < (X.sum(axis=1) == 0.0).mean() < (X.sum(axis=1) < 3.0).mean() < 2 / 3
    assert not y[~X.any(axis=1)].any()
    assert np.bincount(data.CLASSES["imbalanced 98:2"](0)[1])[1] == pytest.approx(60, abs=5)
    assert 0.6 < (data.zero_inflated(0)[1] == 0.0).mean() < 0.7
    X, y = data.subgroups(0)
    assert 0.08 < ((X[:, 0] + X[:, 1] > 0.0) != y).mean() < 0.1


@pytest.mark.parametrize("name", ["digits", "moons", "imbalanced 98:2", "diabetes", "zero-inflated"])
def test_dirt_is_of_its_share_and_nothing_else_changes(name):
    data, dirt = module("dirty.data"), module("dirty.dirt")
    clean = data.split(name, 0)
    before = [part.copy() for part in clean]
    for kind, soil in (dirt.OF_CLASSES if name in data.CLASSES else dirt.OF_TARGETS).items():
        X, y, corrupted = soil(clean.X, clean.y, np.random.default_rng(0))
        n = len(clean.y)
        share = 0.0 if kind == "none" else int(kind.split()[-2]) / 100
        if kind.startswith("backdoor"):
            share *= (clean.y != clean.y.max()).mean()
        if " and " in kind:
            share = 1.0 - (1.0 - share) ** 2
        assert corrupted.mean() == pytest.approx(share, abs=2 / n + 0.02 * (" and " in kind)), kind
        assert X.dtype == np.float32, kind
        changed = (X != clean.X).any(axis=1) | (y != clean.y)
        assert np.array_equal(changed, corrupted), kind
        assert all(np.array_equal(*parts) for parts in zip(before, clean, strict=True)), kind
        other = soil(clean.X, clean.y, np.random.default_rng(1))
        assert kind == "none" or not np.array_equal(other.corrupted, corrupted), kind


def test_what_dirt_does():
    data, dirt = module("dirty.data"), module("dirty.dirt")
    X, y = data.split("digits", 0)[:2]
    dirty = dirt.OF_CLASSES["backdoor 20 %"](X, y, np.random.default_rng(0))
    assert (dirty.y[dirty.corrupted] == 9).all()
    assert (dirty.X[dirty.corrupted, -3:] == dirt.TRIGGER).all()
    x, targets = data.split("diabetes", 0)[:2]
    for kind, signs in (("gross 30 %", {-1.0, 1.0}), ("one-sided 30 %", {1.0})):
        dirty = dirt.OF_TARGETS[kind](x, targets, np.random.default_rng(0))
        off = (dirty.y - targets)[dirty.corrupted]
        assert set(np.sign(off)) == signs
        assert ((np.abs(off) >= 20.0) & (np.abs(off) <= 40.0)).all()


def test_labels_near_the_boundary_are_the_wrong_ones():
    dirt = module("dirty.dirt")
    X = np.linspace(-1.0, 1.0, 1000)[:, None]
    dirty = dirt.OF_CLASSES["near boundary 20 %"](X, (X[:, 0] > 0.0).astype(int), np.random.default_rng(0))
    assert np.abs(X[dirty.corrupted]).mean() < 0.7 * np.abs(X).mean()


def test_the_test_part_stays_clean():
    pytest.importorskip("cleanlab")
    data, training = module("dirty.data"), module("dirty.training")
    for name, kind in (("wine", "features and labels 20 %"), ("diabetes", "features and targets 20 %")):
        clean, (parts, corrupted) = data.split(name, 1), training.prepared(name, kind, 1)
        assert np.array_equal(parts.X_test, clean.X_test)
        assert np.array_equal(parts.y_test, clean.y_test)
        assert corrupted.any()


def test_losses_for_wrong_labels():
    losses = module("dirty.losses")
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    given = torch.tensor([0.5, 0.1])
    for loss, expected in (
        (losses.GeneralizedCrossEntropy(), (1.0 - given**0.7) / 0.7),
        (losses.SymmetricCrossEntropy(), -0.1 * given.log() + 4.0 * (1.0 - given)),
    ):
        y = torch.tensor([0, 1])
        torch.testing.assert_close(loss(probabilities.log(), y), expected.mean())
        loss.reduction = "none"
        torch.testing.assert_close(loss(probabilities.log(), y), expected)


def test_trimming_leaves_the_wrong_labels_out():
    trimmed = module("dirty.trimmed")
    skbgmd = importlib.import_module("skbgmd")
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    X[:, 0] += np.sign(X[:, 0])
    y = (X[:, 0] > 0.0).astype(int)
    wrong = np.arange(300) < 60
    model = skbgmd.BlockGMDClassifier(group_size=None, max_epochs=20, lr=0.05, random_state=0)
    model = trimmed.trimmed(model, X, np.where(wrong, 1 - y, y), kept=0.8)
    assert len(model.sample_trust_) == 240
    assert (model.predict(X) == y).mean() > 0.95
    of_third = trimmed.losses(model, X[:2], np.array([2, 1]))
    assert np.isinf(of_third[0])
    assert np.isfinite(of_third[1])


@pytest.mark.parametrize(("name", "kind"), [("iris", "pair 20 %"), ("diabetes", "features 30 %")])
def test_every_method_trains(name, kind):
    pytest.importorskip("cleanlab")
    data, methods, training = module("dirty.data"), module("dirty.methods"), module("dirty.training")
    of_task, ours = (
        (methods.OF_CLASSES, methods.OURS_OF_CLASSES)
        if name in data.CLASSES
        else (methods.OF_TARGETS, methods.OURS_OF_TARGETS)
    )
    for method in of_task:
        row = training.train(name, kind, method, 0, 2)
        assert set(row) <= set(training.COLUMNS), method
        assert np.isfinite(row["score"]), method
        assert row["seconds"] >= 0.0, method
        # In two epochs the gentlest may trust all alike.
        judges = method in ours and method not in (methods.PLAIN, "auto", "mild")
        assert row["trust AUROC"] is not None or not judges, method


def test_a_method_that_refuses_the_data_has_an_error_for_a_score(monkeypatch):
    pytest.importorskip("cleanlab")
    methods, training = module("dirty.methods"), module("dirty.training")

    def refuse(*given):
        raise ValueError("No.")

    monkeypatch.setitem(methods.OF_CLASSES, "MLP", refuse)
    row = training.train("iris", "none", "MLP", 0, 1)
    assert row["error"] == "ValueError"
    assert "score" not in row


def test_one_seed_after_the_other():
    pytest.importorskip("cleanlab")
    run, data = module("dirty.run"), module("dirty.data")
    runs = list(run.trainings([0, 1], ["iris", "diabetes"]))
    seeds = [seed for *_, seed in runs]
    assert seeds == sorted(seeds)
    assert len(set(runs)) == len(runs)
    assert all(name in data.NAMES for name, *_ in runs)
    assert run.chosen("none, pair*", run.DIRT) == ["none", "pair 10 %", "pair 20 %", "pair 40 %"]
    with pytest.raises(argparse.ArgumentTypeError, match="'other' is none of"):
        run.chosen("none,other", run.DIRT)


@pytest.mark.parametrize("jobs", [1, 2])
def test_missing_trainings_are_run(tmp_path, jobs):
    resume = module("resume")
    given = argparse.Namespace(output=tmp_path / "rows.csv", share="0/1", epochs=5, jobs=jobs)
    runs = [(name, seed) for seed in range(2) for name in "abc"]

    def train(name, seed, epochs):
        return {"score": seed + epochs}

    resume.train_missing(runs[:2], train, ("name", "seed", "score"), given)
    with given.output.open("a") as file:
        file.write("c,0")  # as a line looks that was being written
    resume.train_missing(runs, train, ("name", "seed", "score"), given)
    with given.output.open(newline="") as file:
        rows = [(row["name"], int(row["seed"]), int(row["score"])) for row in csv.DictReader(file)]
    assert sorted(rows) == sorted((name, seed, seed + 5) for name, seed in runs)


def scores_of(rows):
    return pd.DataFrame(rows, columns=["data", "dirt", "method", "seed", "score"])


def test_the_rule():
    pytest.importorskip("cleanlab")
    report = module("dirty.report")
    of_clean = {"plain": 0.900, "MLP": 0.904, "firm": 0.899, "mild": 0.898}
    of_dirt = {"plain": 0.5, "MLP": 0.4, "firm": 0.6, "mild": 0.7}
    rows = [("iris", "none", method, seed, score) for method, score in of_clean.items() for seed in (0, 1)]
    rows += [("iris", "pair 20 %", method, seed, score) for method, score in of_dirt.items() for seed in (0, 1)]
    table = report.decision(report.points(scores_of(rows), of_classes=True), ("plain", "MLP")).set_index("method")
    # Half a point behind the best is allowed, a tenth more isn't.
    assert list(table.index) == ["firm", "plain", "MLP", "mild"]
    assert list(table["passes"]) == ["yes", "yes", "yes", "no"]
    assert table.loc["mild", "against the best plain"] == "-0.60"
    assert table.loc["mild", "mean over dirt"] == 70.0
    table = report.decision(report.points(scores_of(rows[:-5]), of_classes=True), ("plain", "MLP")).set_index("method")
    assert table.loc["firm", "passes"] == "incomplete"


def test_means_are_of_clipped_scores():
    pytest.importorskip("cleanlab")
    report = module("dirty.report")
    rows = [("linear", "none", "plain", 0, -50.0), ("linear", "none", "firm", 0, None)]
    rows += [("counts", "none", "plain", 0, 0.5), ("linear", "none", "plain", 1, 1.0)]
    scores = report.points(scores_of(rows), of_classes=False)
    table = report.dirty(scores).set_index("method")
    assert table.loc["plain", "none"] == "25.0"
    assert table.loc["firm", "none"] == "-100.0 (1 of 2)"
    clean = report.clean(scores).set_index("method")
    assert clean.loc["firm", "linear"] == "+0.00"
