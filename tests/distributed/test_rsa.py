"""RSA: its updates, the bound for a hostile worker, where it converges to, and several ranks."""

from __future__ import annotations

import copy
import pickle
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.distributed as dist

from processes import check_all_know, error_and_seconds, on_ranks
from skbgmd.distributed import RSA, RankLostError
from skbgmd.distributed import rsa as module
from skbgmd.distributed.rsa import master_step, rsa_step, signs

ATTACKS = {
    "nan": lambda master, honest: torch.full_like(master, torch.nan),
    "inf": lambda master, honest: torch.full_like(master, torch.inf),
    "far": lambda master, honest: torch.full_like(master, -1e30),
    "against": lambda master, honest: 2.0 * master - honest.mean(dim=0),
    "near": lambda master, honest: master - 1e-6,
    "silent": lambda master, honest: master.clone(),
}


def draws(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_step_by_hand():
    workers = torch.tensor([[1.0, 0.0], [3.0, -2.0]])
    master = torch.tensor([2.0, 0.0])
    gradients = torch.tensor([[0.5, 1.0], [0.0, -1.0]])
    moved, after = rsa_step(workers, master, gradients, lr=0.1, penalty=2.0, weight_decay=0.5)
    torch.testing.assert_close(moved, torch.tensor([[1.0 - 0.05 + 0.2, -0.1], [3.0 - 0.2, -2.0 + 0.1 + 0.2]]))
    torch.testing.assert_close(after, torch.tensor([2.0 - 0.1, -0.2]))


def test_a_step_is_one_of_subgradient_descent():
    workers, master = draws(4, 3).requires_grad_(), draws(1, 3, 1)[0].requires_grad_()
    aims = draws(4, 3, 2)
    objective = 0.5 * (workers - aims).square().sum() + 0.15 * master.square().sum()
    objective = objective + 0.7 * (workers - master).abs().sum()
    of_workers, of_master = torch.autograd.grad(objective, (workers, master))
    with torch.no_grad():
        moved, after = rsa_step(workers, master, workers - aims, lr=0.1, penalty=0.7, weight_decay=0.3)
        torch.testing.assert_close(moved, workers - 0.1 * of_workers)
        torch.testing.assert_close(after, master - 0.1 * of_master)


@pytest.mark.parametrize("attack", list(ATTACKS))
@pytest.mark.parametrize("n_hostile", [1, 2, 5])
def test_hostile_workers_move_the_master_by_no_more_than_their_steps(attack, n_hostile):
    """The authors' bound: lr times penalty for each of them and in each coordinate, against silence."""
    honest, master = draws(6, 20), draws(1, 20, 1)[0]
    hostile = ATTACKS[attack](master, honest).expand(n_hostile, -1)
    every, settings = torch.cat([honest, hostile]), {"lr": 0.1, "penalty": 0.3}
    _, after = rsa_step(every, master, torch.zeros_like(every), **settings)
    _, without = rsa_step(honest, master, torch.zeros_like(honest), **settings)
    assert (after - without).abs().max() <= n_hostile * 0.1 * 0.3 * (1 + 1e-12)
    if attack in ("far", "near"):
        torch.testing.assert_close(after - without, torch.full_like(master, -n_hostile * 0.1 * 0.3))


@pytest.mark.parametrize("sent", [-128, -2, -1, 0, 1, 99, 127])
def test_bytes_that_are_no_signs_count_as_signs(sent):
    master, honest = torch.zeros(3), torch.zeros(4, 3, dtype=torch.int8)
    lie = torch.full((1, 3), sent, dtype=torch.int8)
    after = master_step(master, torch.cat([honest, lie]), lr=0.1, penalty=1.0, weight_decay=0.0)
    torch.testing.assert_close(after, torch.full((3,), 0.1 * float(np.sign(sent))))


def minimized(aims, attack=None, n_hostile=0, penalty=0.5, steps=3000):
    """Minimize the sum of |x - aim|^2 / 2 over honest workers, each of which knows its own aim only."""
    master = torch.zeros(aims.shape[1], dtype=aims.dtype)
    workers = master.repeat(len(aims), 1)
    for step in range(steps):
        every = workers
        if n_hostile:
            every = torch.cat([workers, ATTACKS[attack](master, workers).expand(n_hostile, -1)])
        gradients = torch.cat([workers - aims, torch.zeros(n_hostile, aims.shape[1], dtype=aims.dtype)])
        every, master = rsa_step(every, master, gradients, lr=2.0 / (20.0 + step), penalty=penalty)
        workers = every[: len(aims)]
    return master


def test_models_agree_on_the_optimum_where_the_penalty_is_large_enough():
    """The l1 penalty is exact: unlike workers, one minimizer of the sum."""
    aims = 2.0 + 0.3 * draws(8, 5)
    at = aims.mean(dim=0)
    least = float((aims - at).abs().max())
    torch.testing.assert_close(minimized(aims, penalty=1.1 * least), at, atol=0.02, rtol=0.0)
    assert (minimized(aims, penalty=0.1 * least) - at).abs().max() > 0.05


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_a_third_of_hostile_workers_leaves_it_near_the_optimum(attack):
    """Unlike honest workers, convex losses: off by the hostile signs' share at most, where a mean is anywhere."""
    aims = 2.0 + 0.1 * draws(8, 5)
    penalty, n_hostile = 0.5, 4
    off = (minimized(aims, attack, n_hostile, penalty) - aims.mean(dim=0)).abs().max()
    # Honest gradients and hostile signs balance there: |sum of 8 (x - aim)| <= 4 penalties.
    assert off <= n_hostile * penalty / len(aims) + 0.02


def aims_of(size):
    return 1.0 + 0.3 * draws(size, 3).float()


def train(rank, size, aims, steps, hostile=()):
    parameters = [torch.nn.Parameter(torch.full((2,), float(rank))), torch.nn.Parameter(torch.full((), float(rank)))]
    frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    optimizer = RSA([{"params": parameters}, {"params": [frozen], "penalty": 0.1}], lr=0.05, penalty=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 10.0 / (10.0 + step))
    if rank in hostile:
        module.signs = lambda worker, master: torch.full(worker.shape, 127, dtype=torch.int8)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * (torch.cat([each.flatten() for each in parameters]) - aims[rank]).square().sum()
        loss.backward()
        optimizer.step()
        schedule.step()
    sent = optimizer.exchange.traffic.sent
    optimizer.load_master()
    return torch.cat([each.detach().flatten() for each in (*parameters, frozen)]).numpy(), sent


def simulated(aims, steps):
    master, workers = torch.zeros(3), torch.zeros(len(aims), 3)
    for step in range(steps):
        lr = 0.05 * 10.0 / (10.0 + step)
        workers, master = rsa_step(workers, master, workers - aims, lr=lr, penalty=0.5)
    return master.numpy()


def test_ranks_come_to_what_one_process_does():
    size, steps = 3, 40
    found = on_ranks(train, size, aims_of(size), steps)
    for master, sent in found:
        np.testing.assert_array_equal(master, found[0][0])
        np.testing.assert_allclose(master[:3], simulated(aims_of(size), steps), atol=1e-6)
        assert master[3] == 1.0
        # A byte for each parameter, to each other rank, in each step.
        assert sent == steps * 4 * (size - 1)


def test_a_rank_that_sends_other_bytes_moves_no_more():
    size, steps = 3, 10
    found = on_ranks(train, size, aims_of(size), steps, (1,))
    np.testing.assert_array_equal(found[0][0], found[2][0])
    most = sum(0.05 * 10.0 / (10.0 + step) for step in range(steps)) * 0.5
    assert np.abs(found[0][0][:3]).max() <= size * most * (1 + 1e-6)


def test_the_master_is_saved(forked):
    model = torch.nn.Linear(2, 1)
    optimizer = RSA(model.parameters(), lr=0.1, penalty=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    twin = copy.deepcopy(model)
    other = RSA(twin.parameters(), lr=1.0)
    # What is loaded is a copy: neither changes the other's.
    other.load_state_dict(optimizer.state_dict())
    for each, own in ((model, optimizer), (twin, other)):
        own.zero_grad()
        each(torch.ones(1, 2)).sum().backward()
        own.step()
        own.load_master()
    assert torch.equal(model.weight, twin.weight)


def by_odd_ranks(rank, size):
    """Settings, a state and shapes that one rank alone has; the ranks stay in step."""
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.full((3,), float(rank))
    optimizer = RSA([parameter], lr=0.1, penalty=0.5)
    optimizer.step()
    before = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[0]["lr"] = 0.2 if rank == 1 else 0.1
    with pytest.raises(
        ValueError, match=r"Settings of RSA \(group 0\) must .*'lr': 0.1, .* on ranks 0, 2; .*'lr': 0.2"
    ):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    if rank == 1:
        optimizer.load_state_dict(copy.deepcopy(before))
    with pytest.raises(ValueError, match="A state must be loaded on all ranks or none; found one on rank 1 alone"):
        optimizer.step()
    # All load, but not the same; then all the same, and go on.
    odd = copy.deepcopy(before)
    odd["state"][0]["master"] += float(rank == 1)
    for state in (odd, before):
        optimizer.load_state_dict(copy.deepcopy(state))
        told = pytest.raises(ValueError, match="Checksums of the master that states hold must be the same on all ranks")
        with told if state is odd else nullcontext():
            optimizer.step()
    with pytest.raises(ValueError, match="The shapes of params in RSA must be the same on all ranks"):
        RSA([torch.nn.Parameter(torch.ones(3 + rank))])
    return True


def test_what_one_rank_alone_has_is_an_error_of_all():
    assert on_ranks(by_odd_ranks, 3) == [True] * 3


def of_a_group(rank, size):
    """A group without the first of all ranks: its own first rank gives the parameters."""
    group = dist.new_group([1, 2])
    if rank == 0:
        return None
    parameter = torch.nn.Parameter(torch.full((2,), float(rank)))
    optimizer = RSA([parameter], lr=0.1, penalty=0.5, group=group)
    begin = parameter.tolist()
    optimizer.step()
    return begin


def test_a_group_without_the_first_rank():
    assert on_ranks(of_a_group, 3) == [None, [1.0, 1.0], [1.0, 1.0]]


def test_a_closure_computes_the_gradients():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = RSA([parameter], lr=0.1, penalty=0.5)

    def closure():
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.8]))


def test_equal_models_pull_at_nothing():
    assert signs(torch.tensor([1.0, torch.nan, -torch.inf]), torch.ones(3)).tolist() == [0, 0, -1]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": 0.0}, ValueError, r"lr must be greater than 0.*; found 0"),
        ({"penalty": -1.0}, ValueError, r"penalty must be greater than 0.*; found -1"),
        ({"penalty": "large"}, TypeError, r"penalty must be a number; found 'large'"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay must be at least 0.*; found -0.1"),
    ],
)
def test_parameters_are_checked(settings, error, message):
    with pytest.raises(error, match=message):
        RSA([torch.nn.Parameter(torch.ones(1))], **settings)
    master = torch.ones(2)
    with pytest.raises(error, match=message):
        rsa_step(master[None], master, master[None], **({"lr": 0.1, "penalty": 0.1} | settings))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"workers": torch.zeros(2)}, ValueError, r"workers and gradients must both have shape \(n, d\)"),
        ({"gradients": torch.zeros(3)}, ValueError, r"found \(4, 3\) and \(3,\)"),
        ({"workers": torch.zeros(4, 3, dtype=torch.int32)}, TypeError, "workers must hold floating point numbers"),
        ({"master": torch.zeros(1)}, ValueError, r"master must be a tensor of shape \(3,\); found shape \(1,\)"),
        ({"master": [0.0, 0.0, 0.0]}, ValueError, r"master must be a tensor of shape \(3,\); found list"),
    ],
)
def test_shapes_of_a_step_are_checked(changed, error, message):
    given = {"workers": torch.zeros(4, 3), "master": torch.zeros(3), "gradients": torch.zeros(4, 3)}
    with pytest.raises(error, match=message):
        rsa_step(**(given | changed), lr=0.1, penalty=0.1)


def test_parameters_that_are_added_have_a_master_and_settings_of_their_own():
    first, second = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = RSA([first], lr=0.1, penalty=0.5)
    with pytest.raises(ValueError, match="penalty must be greater than 0"):
        optimizer.add_param_group({"params": [second], "penalty": -1.0})
    with pytest.raises(ValueError, match="penalty must be greater than 0"):
        RSA([{"params": [first]}, {"params": [second], "penalty": 0.0}])
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    for parameter in (first, second):
        parameter.grad = torch.ones(2)
    optimizer.step()
    assert (first.tolist(), second.tolist()) == (pytest.approx([0.9, 0.9]), pytest.approx([0.8, 0.8]))
    optimizer.load_master()
    assert second.tolist() == [1.0, 1.0]


def added(rank, size):
    optimizer = RSA([torch.nn.Parameter(torch.zeros(1))])
    later = torch.nn.Parameter(torch.full((2,), float(rank + 5)))
    optimizer.add_param_group({"params": [later]})
    begin = later.tolist()
    optimizer.step()
    with pytest.raises(ValueError, match="The shapes of params in RSA must be the same on all ranks"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3 + rank))]})
    optimizer.step()
    return begin


def test_parameters_that_are_added_begin_as_on_the_first_rank():
    assert on_ranks(added, 2) == [[5.0, 5.0]] * 2


def added_by_one(rank, size):
    optimizer = RSA([torch.nn.Parameter(torch.zeros(300))])
    optimizer.step()
    begin = time.monotonic()
    later = {"params": [torch.nn.Parameter(torch.zeros(2))]}
    with pytest.raises(RankLostError) as caught:
        optimizer.add_param_group(later) if rank == 1 else optimizer.step()
    return str(caught.value), time.monotonic() - begin


def test_parameters_that_one_rank_adds_alone_are_an_error_of_all():
    # They can't meet afterwards, which "lost" says.
    for message, seconds in on_ranks(added_by_one, 3, lost={3}):
        assert message.startswith("All ranks must take part in the same collectives; found gather of 305 bytes")
        assert "(The shapes of params in RSA), number" in message
        assert seconds < 5.0


def failing_alone(rank, size, where):
    """What fails on the second of three ranks, where the others go on to a step."""

    def train():
        optimizer = RSA([torch.nn.Parameter(torch.zeros(1))], lr=-1.0 if (rank, where) == (1, "lr") else 0.1)
        if (rank, where) == (1, "group"):
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": -1.0})
        optimizer.step((lambda: 1 / 0) if (rank, where) == (1, "closure") else None)

    return error_and_seconds(train)


@pytest.mark.parametrize("where", ["lr", "group", "closure"])
def test_the_others_are_told_what_fails_on_one_rank_alone(where):
    check_all_know(on_ranks(failing_alone, 3, where, lost={3}), 1)


def test_states_of_other_optimizers_are_refused():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = RSA([parameter])
    parameter.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"state_dict must be of RSA, .* found none for 1 of 1"):
        optimizer.load_state_dict(torch.optim.SGD([parameter]).state_dict())
    with pytest.raises(ValueError, match=r"parameters of the same shapes; found \(3,\) for one of \(2,\)"):
        optimizer.load_state_dict(RSA([torch.nn.Parameter(torch.ones(3))]).state_dict())
    optimizer.step()


@pytest.mark.parametrize("how", ["copied", "pickled"])
def test_copies_go_on(how):
    optimizer = RSA([torch.nn.Parameter(torch.ones(3))], lr=0.1, weight_decay=0.5)
    optimizer.step()
    twin = copy.deepcopy(optimizer) if how == "copied" else pickle.loads(pickle.dumps(optimizer))
    for each in (optimizer, twin):
        each.step()
        each.load_master()
        each.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    (one, _), (two, _) = ([parameter for parameter, _ in each._each()] for each in (optimizer, twin))
    assert one is not two
    assert torch.equal(one, two)


def copied_in_group(rank, size):
    group = dist.new_group([0, 1])
    optimizer = RSA([torch.nn.Parameter(torch.ones(3))], group=group)
    twin = copy.deepcopy(optimizer)
    twin.step()
    twin.load_state_dict(optimizer.state_dict())
    twin.step()
    return twin.exchange.group is group and twin.exchange.size == size


def test_a_deep_copy_has_the_group():
    assert on_ranks(copied_in_group, 2) == [True, True]


def test_kinds_of_parameters():
    RSA(
        [torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.ones(2, 0)), torch.nn.Parameter(torch.ones(2))]
    ).step()
    with pytest.raises(TypeError, match=r"params must hold floating point numbers; found dtype torch\.complex64"):
        RSA([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])


def test_sparse_gradients_are_those_of_dense_ones():
    found = []
    for sparse in (False, True):
        table = torch.nn.Embedding(4, 2, sparse=sparse, _weight=torch.arange(8.0).view(4, 2))
        optimizer = RSA([torch.nn.Parameter(torch.ones(2)), table.weight], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            table(torch.tensor([1, 3, 3])).square().sum().backward()
            optimizer.step()
        found.append(table.weight.detach())
    torch.testing.assert_close(*found, rtol=0.0, atol=0.0)
