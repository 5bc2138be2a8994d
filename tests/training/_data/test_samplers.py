"""Batches of even sizes, of groups with equal shares of the classes, and of clients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skorch.dataset import Dataset
from torch.utils.data import RandomSampler, SequentialSampler, Subset

from nets import dataset_of
from skbgmd._utils.slices import even_slices
from skbgmd.training._data import samplers
from skbgmd.training._data.loader import ArrayLoader, ClientSampler, EvenBatchSampler, KeptSamples

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.parametrize(("n", "size", "expected"), [(10, 4, [5, 5]), (5, 8, [5]), (100, 32, [34, 33, 33])])
def test_even_batches(n, size, expected):
    loader = ArrayLoader(Dataset(np.zeros((n, 1)), np.zeros(n)), batch_size=size, even=True)
    sizes = [len(batch.positions) for batch in loader]
    assert sizes == expected
    assert len(loader) == len(expected)


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [(10, 4, [4, 3, 3]), (5, 8, [5]), (97, 32, [25, 24, 24, 24]), (64, 32, [32, 32]), (1, 1, [1])],
)
def test_even_batches_that_are_no_larger(n, size, expected):
    loader = ArrayLoader(Dataset(np.zeros((n, 1)), np.zeros(n)), batch_size=size, even="at_most")
    assert [len(batch.positions) for batch in loader] == expected
    assert len(loader) == len(expected)
    for even in ("most", 2, None):
        with pytest.raises(ValueError, match=r'^even must be True, False or "at_most"; found '):
            ArrayLoader(loader.dataset, even=even)


@pytest.mark.parametrize("kind", ["own generator", "global generator", "in sequence"])
@pytest.mark.parametrize("n", [1, 2, 53])
@pytest.mark.parametrize("leaves_out", [False, True])
@pytest.mark.parametrize("draws_as_known", [False, True])
def test_batches_take_the_indices_that_the_order_has(kind, n, leaves_out, draws_as_known, monkeypatch):
    # Of a torch that draws otherwise indices are taken one by one.
    monkeypatch.setattr(samplers, "draws_two_permutations", lambda: draws_as_known)

    def drawn(take):
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(3) if kind == "own generator" else None
        order = SequentialSampler(range(n)) if kind == "in sequence" else RandomSampler(range(n), generator=generator)
        kept = KeptSamples(order)
        kept.kept = np.arange(n) % 3 != 1 if leaves_out else None
        epochs = [list(take(kept)) for _ in range(3)]
        # What is drawn next is the same as well.
        return epochs, torch.rand(2, generator=generator).tolist(), torch.rand(2).tolist()

    def in_batches(order):
        return np.concatenate([*EvenBatchSampler(order, 8), np.zeros(0, dtype=np.int64)])

    assert drawn(in_batches) == drawn(iter)


def test_this_torch_draws_as_known():
    before = torch.get_rng_state()
    assert samplers.draws_two_permutations()
    assert torch.equal(torch.get_rng_state(), before)


def test_stratified_groups_have_equal_shares_of_the_classes(rng):
    y = np.repeat([0, 1], [112, 16])
    dataset = dataset_of(np.zeros((128, 1)), y)
    loader = ArrayLoader(dataset, batch_size=64, shuffle=True, stratify=8, generator=torch.Generator().manual_seed(0))
    seen = []
    for X, classes in loader:
        rare = int(classes.sum())
        of_group = [int(classes[part].sum()) for part in even_slices(len(X), 8)]
        assert max(of_group) - min(of_group) <= 1
        assert sum(of_group) == rare
    for batch in loader:
        seen += batch.positions.tolist()
    assert sorted(seen) == list(range(128))


def test_each_client_has_its_slice_in_each_batch():
    clients = np.repeat(["b", "a", "c"], [20, 3, 11])
    dataset = dataset_of(np.zeros((34, 1)), np.zeros(34), np.arange(34.0), clients)
    loader = ArrayLoader(dataset, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    batches = list(loader)
    assert len(batches) == 4  # what the largest client needs
    for batch in batches:
        assert [len(set(clients[batch.positions[part]])) for part in batch.slices] == [1, 1, 1]
        assert [part.stop - part.start for part in batch.slices] == [3, 5, 5]
        assert batch.clients == ("a", "b", "c")
        np.testing.assert_array_equal(batch.weight, batch.positions)
    of_largest = np.concatenate([batch.positions[batch.slices[1]] for batch in batches])
    assert sorted(of_largest) == list(range(20))


def test_a_client_begins_anew_when_it_is_through():
    sampler = ClientSampler(np.repeat([0, 1], [6, 4]), 3, shuffle=False)
    assert list(sampler) == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 6, 7]]


@pytest.mark.parametrize("kind", ["whole", "subset", "tensors", "transformed"])
def test_classes_are_dealt_out_whatever_the_dataset(kind):
    X, y = np.arange(24.0)[:, None], np.repeat([0, 1, 2], 8)
    dataset = Dataset(X, y)
    if kind == "subset":
        dataset = Subset(Dataset(np.repeat(X, 2, axis=0), np.repeat(y, 2)), np.arange(0, 48, 2))
    if kind == "tensors":
        dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    if kind == "transformed":
        dataset = type("Other", (Dataset,), {"transform": lambda self, X, y: Dataset.transform(self, X, y)})(X, y)
    for targets in ArrayLoader(dataset, batch_size=24, stratify=6):
        assert [sorted(part.tolist()) for part in targets[1].view(4, 6)] == [[0, 0, 1, 1, 2, 2]] * 4


@pytest.mark.parametrize("y", [np.linspace(0.0, 1.0, 8), np.zeros((8, 2), dtype=int), None, np.full(8, np.nan)])
def test_other_targets_are_not_dealt_out(y):
    seen = [batch.positions.tolist() for batch in ArrayLoader(Dataset(np.zeros((8, 1)), y), batch_size=8, stratify=2)]
    assert seen == [list(range(8))]
    halves = ArrayLoader(Dataset(np.zeros((8, 1)), np.repeat([0.0, 1.0], 4)[:, None]), batch_size=8, stratify=2)
    assert [batch.positions.tolist() for batch in halves] == [[0, 4, 1, 5, 2, 6, 3, 7]]
