"""Batches by index, against a DataLoader that collates sample by sample."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import DataLoader, Subset

import skbgmd.training._data.loader as loader_module
from skbgmd._utils import limits
from skbgmd.training._data.loader import ArrayLoader, Batch, has_no_target

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def dataset(rng):
    return Dataset(rng.normal(size=(23, 3)).astype(np.float32), rng.integers(0, 3, size=23))


@pytest.mark.parametrize("settings", [{}, {"shuffle": True}, {"drop_last": True, "shuffle": True}])
@pytest.mark.parametrize("part", ["whole", "subset", "subset of a subset"])
def test_the_batches_of_a_data_loader(dataset, settings, part):
    if part != "whole":
        dataset = Subset(dataset, [5, 3, 1, 20, 7, 8, 9])
    if part == "subset of a subset":
        dataset = Subset(dataset, [6, 0, 2])
    collected = []
    for loader in (ArrayLoader, DataLoader):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            batches = list(loader(dataset, batch_size=4, **settings))
            batches += list(loader(dataset, batch_size=4, **settings))
        collected.append(batches)
    ours, theirs = collected
    assert all(isinstance(batch, Batch) for batch in ours)
    assert len(ours) == len(theirs)
    for (X, y), (X_expected, y_expected) in zip(ours, theirs, strict=True):
        assert torch.equal(X, X_expected)
        assert X.dtype == X_expected.dtype
        assert torch.equal(y, y_expected)


def test_positions_are_those_in_the_whole_dataset(dataset):
    chosen = [5, 3, 1, 20, 7]
    positions = np.concatenate([batch.positions for batch in ArrayLoader(Subset(dataset, chosen), batch_size=2)])
    assert positions.tolist() == chosen


def test_dicts_and_lists_of_arrays(rng):
    X = {"a": rng.normal(size=(5, 2)), "b": [rng.normal(size=(5, 1)), torch.arange(5)]}
    batch = next(iter(ArrayLoader(Dataset(X, np.arange(5)), batch_size=3)))
    np.testing.assert_array_equal(batch[0]["a"], X["a"][:3])
    assert torch.equal(batch[0]["b"][1], torch.arange(3))


class Doubled(Dataset):
    def transform(self, X, y):
        return super().transform(2 * X, y)


@pytest.mark.parametrize("kind", ["data frame", "own transform", "own collation"])
def test_what_is_no_plain_array_is_left_to_the_data_loader(kind, rng):
    X, y = rng.normal(size=(6, 2)), np.arange(6)
    settings = {"collate_fn": lambda samples: "collated"} if kind == "own collation" else {}
    dataset = Doubled(X, y) if kind == "own transform" else Dataset(pd.DataFrame(X) if kind == "data frame" else X, y)
    if kind == "data frame":
        settings = {"collate_fn": lambda samples: samples}
    batch = next(iter(ArrayLoader(dataset, batch_size=3, **settings)))
    assert not isinstance(batch, Batch)
    if kind == "own transform":
        np.testing.assert_allclose(batch[0], 2 * X[:3])
    if kind == "own collation":
        assert batch == "collated"


@pytest.mark.parametrize("elements", [1, 25, 10**6])
@pytest.mark.parametrize("weighted", [True, False])
def test_batches_are_the_same_however_many_are_gathered_at_once(monkeypatch, rng, elements, weighted):
    monkeypatch.setattr(limits, "GATHERED_ELEMENTS", elements)
    dataset = Dataset(rng.normal(size=(53, 3)), np.arange(53))
    if weighted:
        dataset.sample_weight = rng.random(53)
    generator = torch.Generator().manual_seed(3)
    loader = ArrayLoader(Subset(dataset, range(3, 50)), batch_size=6, shuffle=True, even=True, generator=generator)
    seen = []
    for batch in loader:
        X, y = batch
        seen += y.tolist()
        np.testing.assert_array_equal(X, dataset.X[y])
        np.testing.assert_array_equal(batch.positions, y)
        assert len(X) in (5, 6)
        if weighted:
            np.testing.assert_array_equal(batch.weight, dataset.sample_weight[y])
        else:
            assert batch.weight is None
    assert sorted(seen) == list(range(3, 50))
    assert len(loader) == 8


@pytest.mark.parametrize(("value", "expected"), [(-100, True), (2, False), (9, True)])
def test_targets_that_no_batch_has(value, expected):
    y = np.arange(8) % 5
    assert has_no_target(ArrayLoader(Dataset(np.zeros((8, 1)), y), batch_size=4), value) == expected
    assert not has_no_target(ArrayLoader(Dataset(np.zeros((8, 1)), y.astype(np.float32)), batch_size=4), value)
    made = ArrayLoader(Dataset(np.zeros((8, 1)), y), batch_size=4, collate_fn=lambda items: items)
    assert not has_no_target(made, value)


def test_batches_can_be_changed_in_place_by_what_is_trained():
    factor = torch.ones((), requires_grad=True)
    first, second = ArrayLoader(Dataset(np.ones((8, 2)), np.ones((8, 1))), batch_size=4)
    for values in first:
        values += factor
        values.sum().backward()
    assert factor.grad == 12.0
    for values in second:
        assert not values.requires_grad
        assert bool((values == 1.0).all())


@pytest.mark.parametrize("learnt", [0, 1])
def test_data_that_are_learnt_get_gradients(learnt):
    data = [torch.ones(8, 2), torch.ones(8, 2)]
    data[learnt].requires_grad_()
    for X, y in ArrayLoader(Dataset(*data), batch_size=4):
        (3.0 * X * y).sum().backward()
    assert torch.equal(data[learnt].grad, torch.full((8, 2), 3.0))


@pytest.mark.parametrize(("of_x", "of_y"), [(1, 5000), (5000, 1), (300, 300)])
def test_little_is_gathered_at_once_of_wide_inputs_and_wide_targets(monkeypatch, of_x, of_y):
    taken = []
    take = loader_module._take
    monkeypatch.setattr(loader_module, "_take", lambda data, index: taken.append(take(data, index)) or taken[-1])
    n = 2 * limits.GATHERED_ELEMENTS // (of_x + of_y)
    dataset = Dataset(np.zeros((n, of_x), dtype=np.float32), np.zeros((n, of_y), dtype=np.float32))
    assert len(list(ArrayLoader(dataset, batch_size=2))) == -(-n // 2)
    assert max(values.numel() for values in taken) <= limits.GATHERED_ELEMENTS + 2 * max(of_x, of_y)


def test_sequences_of_arrays_come_as_lists():
    Pair = namedtuple("Pair", ["left", "right"])
    data = Pair(np.arange(6.0)[:, None], np.arange(12.0).reshape(6, 2))
    X, _ = next(iter(ArrayLoader(Dataset(data, np.arange(6)), batch_size=4)))
    assert isinstance(X, list)
    assert [tuple(part.shape) for part in X] == [(4, 1), (4, 2)]


def test_batches_are_copied_with_all_they_know():
    batch = Batch(torch.ones(2, 3), torch.zeros(2), np.array([4, 1]), torch.tensor([1.0, 2.0]), [slice(0, 2)], (7,))
    for again in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert torch.equal(again[0], batch[0])
        np.testing.assert_array_equal(again.positions, batch.positions)
        assert torch.equal(again.weight, batch.weight)
        assert again.slices == batch.slices
        assert again.clients == batch.clients


def test_batches_of_workers(dataset):
    batches = []
    for workers in (0, 2):
        torch.manual_seed(3)
        batches.append(list(ArrayLoader(dataset, batch_size=4, shuffle=True, num_workers=workers)))
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours.positions, theirs.positions)


def test_arrays_with_negative_strides(rng):
    X = rng.normal(size=(6, 3))[::-1, ::-1]
    batch = next(iter(ArrayLoader(Dataset(X, np.arange(6)[::-1]), batch_size=4)))
    np.testing.assert_array_equal(batch[0], X[:4])
    assert batch[1].tolist() == [5, 4, 3, 2]
