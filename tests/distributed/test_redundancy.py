"""Redundant gradients across ranks: liars that change nothing, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from processes import on_ranks
from skbgmd import BlockGMDClassifier
from skbgmd._utils.random import seeded
from skbgmd.aggregators import GeometricMedian, MajorityVote, Zeno
from skbgmd.corruption import SignFlip
from skbgmd.distributed import AcrossRanks, Exchange, RobustHook, ShardedRows, redundant_sampler, robust_hook
from skbgmd.rows import DenseRows


@pytest.mark.parametrize(("r", "size"), [(3, 3), (3, 6), (2, 6), (1, 4)])
def test_samplers_are_the_same_within_groups_and_share_out_the_samples(r, size):
    data, per_rank = range(24), []
    for rank in range(size):
        sampler = redundant_sampler(data, r, size=size, rank=rank, seed=3)
        assert isinstance(sampler, DistributedSampler)
        per_rank.append(list(sampler))
    assert all(per_rank[rank] == per_rank[rank // r * r] for rank in range(size))
    assert sorted(index for own in per_rank[::r] for index in own) == list(data)


def test_a_number_of_ranks_that_is_no_multiple_is_an_error():
    with pytest.raises(ValueError, match="The number of ranks must be a multiple of r=3; found 4"):
        redundant_sampler(range(5), 3, size=4, rank=0)
    with pytest.raises(ValueError, match="r must be at least 1"):
        redundant_sampler(range(5), 0, size=4, rank=0)
    with pytest.raises(ValueError, match="rank must be less than the number of ranks, 6; found 7"):
        redundant_sampler(range(5), 3, size=6, rank=7)


def trained(rank, size, r, liars, beta=1.0):
    """Parameters after two epochs with DDP, and the weights of the last step."""
    with seeded(0, "cpu"):
        module = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        X, y = torch.randn(48, 5), torch.randint(0, 2, (48,))
    data = TensorDataset(X, y)
    ddp = DistributedDataParallel(module, bucket_cap_mb=1e-5)
    hook = RobustHook(MajorityVote(r), beta=beta)
    ddp.register_comm_hook(hook, robust_hook)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    sampler = redundant_sampler(data, r)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for features, labels in DataLoader(data, batch_size=8, sampler=sampler):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(ddp(features), labels)
            ((-20.0 - rank) * loss if rank in liars else loss).backward()
            optimizer.step()
    return torch.cat([p.detach().flatten() for p in module.parameters()]).numpy(), hook.weights_


@pytest.mark.parametrize(("size", "liars"), [(3, {1}), (6, {0, 5})])
def test_one_liar_of_each_three_ranks_changes_no_bit(size, liars):
    clean = on_ranks(trained, size, 3, set())
    found = on_ranks(trained, size, 3, liars)
    for (parameters, weights), (expected, _) in zip(found, clean, strict=True):
        np.testing.assert_array_equal(parameters, expected)
        np.testing.assert_array_equal(weights == 0.0, [rank in liars for rank in range(size)])
    assert np.abs(clean[0][0]).max() > 0.0


def test_votes_on_a_block():
    found = on_ranks(trained, 3, 3, {1}, 0.2)
    for parameters, weights in found:
        np.testing.assert_array_equal(parameters, found[0][0])
        np.testing.assert_array_equal(weights, [0.5, 0.0, 0.5])


def estimators(rank, size, liar):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(96, 4))
    model = BlockGMDClassifier(
        aggregator=AcrossRanks("mean", MajorityVote(3)),
        hidden_layer_sizes=(8,),
        max_epochs=2,
        batch_size=32,
        shuffle=False,
        random_state=0,
        gradient_corruption=SignFlip(fraction=0.3) if rank == liar else None,
    )
    return model.fit(X, (X[:, 0] > 0).astype(int)).predict_proba(X)


def test_estimators_across_ranks_vote_on_the_same_data_unshuffled():
    clean, found = on_ranks(estimators, 3, None), on_ranks(estimators, 3, 2)
    for probabilities in found:
        np.testing.assert_array_equal(probabilities, clean[0])


def outvoted(rank, size, with_estimator):
    """A training in which two ranks of three climb, by trusted samples that all ranks have."""
    with seeded(0, "cpu"):
        X = torch.randn(240, 4)
        module = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    y = (X[:, 0] > 0).long()
    if with_estimator:
        targets = 1 - y if rank else y
        zeno = Zeno(trusted=(X[:40].numpy(), y[:40].numpy()), fraction=0.6)
        model = BlockGMDClassifier(aggregator=AcrossRanks("mean", zeno), batch_size=64, max_epochs=15, random_state=0)
        model.fit(X.numpy(), targets.numpy())
        return model.predict_proba(X.numpy()), model.score(X.numpy(), y.numpy())
    sizes = [p.numel() for p in module.parameters()]

    def oracle(displacement):
        parts = torch.split(displacement, sizes)
        moved = {name: p + part.view_as(p) for (name, p), part in zip(module.named_parameters(), parts, strict=True)}
        with torch.no_grad():
            return torch.nn.functional.cross_entropy(torch.func.functional_call(module, moved, (X[:40],)), y[:40])

    ddp = DistributedDataParallel(module, bucket_cap_mb=1e-5)
    ddp.register_comm_hook(RobustHook(Zeno(oracle, lr=0.5, fraction=0.6)), robust_hook)
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.5)
    for step in range(40):
        optimizer.zero_grad()
        part = slice(60 * (step % 4), 60 * (step % 4) + 60)
        loss = torch.nn.functional.cross_entropy(ddp(X[part]), y[part])
        (-loss if rank else loss).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = module(X)
    return predicted.numpy(), float((predicted.argmax(dim=1) == y).double().mean())


@pytest.mark.parametrize("with_estimator", [False, True])
def test_trusted_samples_outvote_a_majority_of_ranks(with_estimator):
    found = on_ranks(outvoted, 3, with_estimator)
    for predicted, score in found:
        np.testing.assert_array_equal(predicted, found[0][0])
        assert score > 0.9


def aggregated(rank, size):
    """Aggregates of sharded rows, by rules with an oracle and with a vote."""
    rows = [torch.linspace(-1.0, 2.0, 7) * (1.0 if other % 3 else -40.0) for other in range(size)]
    exchange = Exchange()
    found = []
    for rule in (MajorityVote(3), MajorityVote(3, GeometricMedian(), rtol=1e-6), Zeno(_rising, lr=0.1, fraction=0.4)):
        sharded = ShardedRows(exchange.to_shards(rows[rank][None]).wait(), 7, exchange)
        aggregate, _ = rule(sharded)
        expected, _ = rule(DenseRows(torch.stack(rows)))
        found.append((exchange.from_shards(aggregate.vector, 7).wait().numpy(), expected.vector.numpy()))
    return found


def _rising(displacement):
    return displacement @ torch.linspace(-1.0, 2.0, 7)


def test_rows_across_ranks():
    for found in on_ranks(aggregated, 6):
        for vector, expected in found:
            np.testing.assert_allclose(vector, expected, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(vector, np.linspace(-1.0, 2.0, 7), rtol=1e-6, atol=1e-7)
