"""BRIDGE: screening by hand, agreement in spite of hostile neighbors, graphs that are refused, and several ranks."""

from __future__ import annotations

import copy
import pickle
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist

from processes import check_all_know, error_and_seconds, on_ranks
from skbgmd.aggregators import CoordinatewiseMedian, GeometricMedian, Krum, NonFiniteRowsError
from skbgmd.distributed import AcrossRanks, Bridge, RankLostError
from skbgmd.distributed.bridge import bridge_step, check_graph, screen


def ring(n, *steps):
    """A ring with chords: each rank's neighbors are so many steps ahead and behind."""
    return [sorted({(rank + sign * step) % n for step in steps for sign in (-1, 1)}) for rank in range(n)]


def complete(n):
    return [[other for other in range(n) if other != rank] for rank in range(n)]


#: By name: a graph and the number of hostile neighbors that it withstands.
GRAPHS = {"ring with chords": (ring(9, 1, 2), 1), "complete": (complete(7), 2), "denser ring": (ring(12, 1, 2, 3), 1)}
ATTACKS = {
    "nan": lambda models: torch.full_like(models[0], torch.nan),
    "far": lambda models: torch.full_like(models[0], 1e30),
    "against": lambda models: -10.0 * models.nanmean(dim=0),
    "a little": lambda models: models[2:].mean(dim=0) + 1.5 * models[2:].std(dim=0),
}


def draws(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("own", "received", "n_hostile", "expected"),
    [
        (0.0, [1.0, 2.0, 3.0], 1, 1.0),
        (0.0, [1.0, 2.0, 3.0], 0, 1.5),
        (5.0, [1.0, 2.0, 3.0, 4.0, 100.0], 2, 4.0),
        (5.0, [1.0, float("nan"), 3.0, 5.0], 1, (9.0 + 5.0) / 4),
        (5.0, [1.0, float("inf"), 3.0, 8.0, 1e9], 2, (3.0 + 8.0 + 5.0) / 3),
        (5.0, [float("nan")] * 3, 1, 5.0),
        (float("nan"), [1.0, 3.0, 8.0, 1e9], 1, (3.0 + 8.0) / 2),
        (float("-inf"), [1.0, 3.0, 8.0, float("nan")], 2, 3.0),
    ],
)
def test_screening_by_hand(own, received, n_hostile, expected):
    found = screen(torch.tensor([own]), torch.tensor(received)[:, None], n_hostile)
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_screening_is_by_coordinates():
    received = torch.tensor([[9.0, 1.0], [2.0, 9.0], [3.0, 3.0]])
    torch.testing.assert_close(screen(torch.zeros(2), received, 1), torch.tensor([1.5, 1.5]))


@pytest.mark.parametrize("seed", range(5))
def test_screened_models_lie_among_honest_ones(seed):
    """In each coordinate, whatever b of the neighbors send: what the authors' proof rests on."""
    honest = draws(5, 30, seed)
    hostile = 10.0 ** (4.0 * draws(2, 30, 100 + seed)) * draws(2, 30, 200 + seed).sign()
    found = screen(honest[0], torch.cat([honest[1:], hostile])[torch.randperm(6, generator=torch.Generator())], 2)
    assert (found >= honest.amin(dim=0)).all()
    assert (found <= honest.amax(dim=0)).all()


def minimized(aims, graph, n_hostile, attack, rule=None, steps=75):
    """Minimize the mean of |x - aim|^2 / 2; the first ``n_hostile`` nodes are hostile. Models of the honest ones."""
    models = 5.0 * draws(len(aims), aims.shape[1], 9)
    for step in range(steps):
        if attack is not None:
            models[:n_hostile] = ATTACKS[attack](models)
        models = bridge_step(models, models - aims, graph, lr=3.0 / (10.0 + step), n_hostile=n_hostile or 1, rule=rule)
    return models[n_hostile:]


@pytest.mark.parametrize("name", list(GRAPHS))
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_honest_nodes_agree_on_the_minimizer_that_they_share(name, attack):
    """The authors' claim, on graphs of 2b + 1 neighbors and more: consensus at the optimum."""
    graph, n_hostile = GRAPHS[name]
    check_graph(graph, len(graph), n_hostile)
    aims = draws(1, 4).repeat(len(graph), 1)
    found = minimized(aims, graph, n_hostile, attack)
    torch.testing.assert_close(found, aims[n_hostile:], atol=2e-2, rtol=0.0)


@pytest.mark.parametrize("name", ["ring with chords", "complete"])
@pytest.mark.parametrize("attack", ["against", "a little"])
def test_unlike_nodes_agree_near_the_optimum(name, attack):
    graph, n_hostile = GRAPHS[name]
    aims = 3.0 + draws(len(graph), 4)
    found = minimized(aims, graph, n_hostile, attack, steps=500)
    honest = aims[n_hostile:]
    assert (found - found.mean(dim=0)).abs().max() < 0.05
    # Screening leaves out honest models as well: near is within the spread of what honest nodes aim at.
    assert (found.mean(dim=0) - honest.mean(dim=0)).norm() < honest.std(dim=0).norm()
    assert ((found >= honest.amin(dim=0) - 0.05) & (found <= honest.amax(dim=0) + 0.05)).all()


def test_one_hostile_node_is_enough_without_screening():
    aims = draws(1, 4).repeat(9, 1)
    graph, models = ring(9, 1, 2), 5.0 * draws(9, 4, 9)
    for step in range(50):
        models[:1] = ATTACKS["far"](models)
        models = bridge_step(models, models - aims, graph, lr=3.0 / (10.0 + step), n_hostile=0)
    assert (models[1:] - aims[1:]).abs().min() > 1e6


@pytest.mark.parametrize("rule", [CoordinatewiseMedian(), GeometricMedian(), Krum(0.2)])
@pytest.mark.parametrize("attack", ["nan", "far"])
def test_other_rules_screen_as_well(rule, attack):
    graph, n_hostile = GRAPHS["complete"]
    aims = draws(1, 4).repeat(7, 1)
    found = minimized(aims, graph, n_hostile, attack, rule)
    torch.testing.assert_close(found, aims[n_hostile:], atol=2e-2, rtol=0.0)


def test_rules_have_the_node_s_own_model_as_a_row():
    found = screen(torch.tensor([5.0]), torch.tensor([[1.0], [9.0]]), 1, CoordinatewiseMedian())
    assert found.tolist() == [5.0]
    with pytest.raises(NonFiniteRowsError):
        screen(torch.tensor([5.0]), torch.tensor([[torch.nan], [torch.nan]]), 1, CoordinatewiseMedian())


@pytest.mark.parametrize(
    ("graph", "n_ranks", "n_hostile", "message"),
    [
        (ring(5, 1), 5, 1, r"2 \* n_hostile \+ 1 = 3 ranks or more for each rank; found 2 for rank 0"),
        ([*complete(4)[:3], [0, 1]], 4, 1, r"3 ranks or more for each rank; found 2 for rank 3"),
        (complete(4), 4, 2, r"= 5 ranks or more for each rank; found 3 for rank 0"),
        (complete(4), 5, 1, r"a list for each of 5 ranks; found 4"),
        ([[0, 1, 2], *complete(4)[1:]], 4, 1, r"other ranks, each once; found \[0, 1, 2\] for rank 0"),
        ([[1, 1, 2], *complete(4)[1:]], 4, 1, r"other ranks, each once; found \[1, 1, 2\] for rank 0"),
        ([[1, 2, 4], *complete(4)[1:]], 4, 1, r"other ranks, each once; found \[1, 2, 4\] for rank 0"),
        (complete(4) + [[4 + other for other in own] for own in complete(4)], 8, 1, r"found 2 parts.* \[0, 1, 2, 3\]"),
        # Ways in one direction only.
        ([*complete(4), [0, 1, 2]], 5, 1, r"must connect all ranks with each other; found 2 parts"),
    ],
)
def test_graphs_are_checked(graph, n_ranks, n_hostile, message):
    with pytest.raises(ValueError, match=message):
        check_graph(graph, n_ranks, n_hostile)


@pytest.mark.parametrize(
    ("graph", "n_hostile", "message"),
    [
        (complete(4), 1.5, r"n_hostile must be an integer; found 1.5"),
        ([[1.0], [0]], 0, r"neighbors must be an integer"),
        ({0: [1], 1: [0]}, 0, r"neighbors must be a sequence of sequences of integers; found \{0: \[1\]"),
        ([1, 0], 0, r"neighbors must be a sequence of sequences of integers; found \[1, 0\]"),
    ],
)
def test_integers_are_checked(graph, n_hostile, message):
    with pytest.raises(TypeError, match=message):
        check_graph(graph, len(graph), n_hostile)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"models": torch.zeros(3, 2)}, ValueError, r"found \(3, 2\) and \(4, 2\)"),
        ({"models": torch.zeros(2), "gradients": torch.zeros(2)}, ValueError, r"must both have shape \(n, d\)"),
        ({"models": torch.zeros(4, 2, dtype=torch.int64)}, TypeError, "models must hold floating point numbers"),
        ({"gradients": torch.zeros(2)}, ValueError, r"found \(4, 2\) and \(2,\)"),
        ({"gradients": np.zeros((4, 2))}, TypeError, "gradients must be a tensor .* found ndarray"),
        ({"lr": -1}, ValueError, "lr must be greater than 0"),
        ({"n_hostile": -1}, ValueError, "n_hostile must be at least 0"),
        ({"n_hostile": 1.5}, TypeError, "n_hostile must be an integer"),
        ({"n_hostile": 3}, ValueError, "= 7 ranks or more for each rank; found 3"),
        ({"neighbors": [[-1, 1, 2]] * 4}, ValueError, "neighbors must be at least 0; found -1"),
        ({"neighbors": complete(5)}, ValueError, "a list for each of 4 ranks; found 5"),
        ({"rule": "median"}, ValueError, "aggregator must be one of"),
    ],
)
def test_a_step_in_one_process_checks_what_it_is_given(changed, error, message):
    given = {"models": torch.zeros(4, 2), "gradients": torch.zeros(4, 2), "neighbors": complete(4), "lr": 0.1}
    with pytest.raises(error, match=message):
        bridge_step(**(given | changed))


def test_a_step_takes_a_rule_by_its_name():
    models = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    by_name, given = (bridge_step(models, models, complete(5), lr=0.1, rule=rule) for rule in ("krum", Krum()))
    assert torch.equal(by_name, given)


@pytest.mark.parametrize(("n", "b"), [(4, 1), (7, 2), (10, 3)])
def test_good_graphs_pass(n, b):
    check_graph(complete(n), n, b)
    check_graph(ring(2 * n, *range(1, b + 2)), 2 * n, b)


STEPS, SIZE = 30, 5


def aim():
    return torch.tensor([1.0, -2.0, 3.0])


def start(rank):
    return torch.arange(3.0) + rank


def train(rank, size, hostile):
    """Each node has its own start; the hostile one sends NaN, or what it likes."""
    parameters = [torch.nn.Parameter(start(rank)[:2].clone()), torch.nn.Parameter(start(rank)[2].clone())]
    optimizer = Bridge(parameters, complete(size), lr=0.2, n_hostile=1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = 0.5 * (torch.cat([each.flatten() for each in parameters]) - aim()).square().sum()
        loss.backward()
        if rank == hostile:
            for each in parameters:
                each.data.fill_(1e30)
        optimizer.step()
    return torch.cat([each.detach().flatten() for each in parameters]).numpy(), optimizer.exchange.traffic.sent


def test_ranks_come_to_what_one_process_does():
    found = on_ranks(train, SIZE, 0)
    models = torch.stack([start(rank) for rank in range(SIZE)])
    for _ in range(STEPS):
        gradients = models - aim()
        models[0] = 1e30
        models = bridge_step(models, gradients, complete(SIZE), lr=0.2)
    for rank in range(1, SIZE):
        np.testing.assert_allclose(found[rank][0], models[rank], rtol=1e-5)
        np.testing.assert_allclose(found[rank][0], aim(), atol=0.01)
        # Three numbers to each neighbor in each step.
        assert found[rank][1] == STEPS * 3 * 4 * (SIZE - 1)


def lonely(rank, size):
    with pytest.raises(ValueError, match=r"3 ranks or more for each rank; found 2"):
        Bridge([torch.nn.Parameter(torch.ones(1))], complete(size))
    mixed = [torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1, dtype=torch.float64))]
    with pytest.raises(ValueError, match=r"params must have one dtype; found torch.float32, torch.float64"):
        Bridge(mixed, complete(size), n_hostile=0)
    with pytest.raises(ValueError, match=r"lr must be greater than 0"):
        Bridge(mixed[:1], complete(size), lr=0.0)
    with pytest.raises(ValueError, match="aggregator must be one of"):
        Bridge(mixed[:1], complete(size), n_hostile=0, rule="median")
    optimizer = Bridge(mixed[:1], complete(size), n_hostile=0)
    for group, message in (({"params": mixed[1:]}, "must have one dtype"), ({"params": [], "lr": -1.0}, "lr must be")):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(group)
    optimizer.step()


def test_wrong_parameters_are_refused_on_ranks():
    on_ranks(lonely, 3)


def failing_alone(rank, size, where):
    """What fails on the second of three ranks, where the others go on to a step."""

    def train():
        n_hostile = 5 if (rank, where) == (1, "graph") else 0
        optimizer = Bridge([torch.nn.Parameter(torch.zeros(1))], complete(size), n_hostile=n_hostile)
        if (rank, where) == (1, "group"):
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": -1.0})
        optimizer.step((lambda: 1 / 0) if (rank, where) == (1, "closure") else None)

    return error_and_seconds(train)


@pytest.mark.parametrize("where", ["graph", "group", "closure"])
def test_the_others_are_told_what_fails_on_one_rank_alone(where):
    check_all_know(on_ranks(failing_alone, 3, where, lost={3}), 1)


#: What one rank has otherwise than the others, and what all are told.
ODD = {
    "larger": ({"shape": (3, 2)}, "shapes of params"),
    "smaller": ({"shape": (1, 2)}, "shapes of params"),
    "another shape": ({"shape": (4,)}, "shapes of params"),
    "another dtype": ({"dtype": torch.bfloat16}, "shapes of params"),
    "another rule": ({"rule": "coordinate_median"}, "rule"),
    "more hostile ranks": ({"n_hostile": 1}, "n_hostile"),
    "another graph": ({"neighbors": ring(4, 1)}, "neighbors"),
}


def bridge_of(shape=(2, 2), dtype=torch.float16, neighbors=None, n_hostile=0, rule=None):
    parameter = torch.nn.Parameter(torch.ones(shape, dtype=dtype))
    return parameter, Bridge([parameter], neighbors or complete(4), n_hostile=n_hostile, rule=rule)


def with_odd_ranks(rank, size):
    found = {}
    for name, (settings, _) in ODD.items():
        _, optimizer = bridge_of(**(settings if rank == 1 else {}))
        with pytest.raises(ValueError, match="must be the same on all ranks") as caught:
            optimizer.step()
        found[name] = str(caught.value)
    _, optimizer = bridge_of()
    optimizer.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3, dtype=torch.float16))]})
    optimizer.step()
    return found


def test_what_one_rank_has_otherwise_is_an_error_of_all():
    for found in on_ranks(with_odd_ranks, 4):
        for name, (_, odd) in ODD.items():
            assert found[name].startswith(f"What is set in Bridge ({odd}) must be the same on all ranks; found ")
            assert found[name].endswith("on rank 1.")


def changed_by_one(rank, size, how):
    parameter, optimizer = bridge_of()
    optimizer.step()
    begin = time.monotonic()
    if rank == 1 and how == "added":
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3, dtype=torch.float16))]})
    elif rank == 1:
        parameter.data = parameter.data.to(how)
    with pytest.raises(RankLostError) as caught:
        optimizer.step()
    return str(caught.value), time.monotonic() - begin


@pytest.mark.parametrize("how", ["added", torch.bfloat16, torch.float64], ids=str)
def test_parameters_that_one_rank_changes_alone_are_an_error_of_all(how):
    # They can't meet afterwards, which "lost" says.
    for message, seconds in on_ranks(changed_by_one, 4, how, lost={4}):
        assert message.startswith("All ranks must take part in the same collectives; found swap of 8 bytes, number")
        assert "(What is set in Bridge), number" in message
        assert seconds < 5.0


def copied(rank, size):
    group = dist.new_group([0, 1, 2])
    optimizer = Bridge([torch.nn.Parameter(torch.full((2,), float(rank)))], complete(3), n_hostile=0, group=group)
    twins = copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))
    found = []
    for each in (optimizer, *twins):
        each.step()
        found.append(each.param_groups[0]["params"][0].tolist())
    return found[0] == found[1] == found[2] and twins[0].exchange.group is group


def test_copies_go_on():
    assert on_ranks(copied, 3) == [True] * 3


def test_rules_across_ranks_are_refused():
    with pytest.raises(ValueError, match=r"rule must be a rule for rows, .* found AcrossRanks"):
        bridge_step(torch.ones(4, 2), torch.ones(4, 2), complete(4), lr=0.1, rule=AcrossRanks())
    assert on_ranks(with_ranks_rule, 2) == [True] * 2


def with_ranks_rule(rank, size):
    with pytest.raises(ValueError, match=r"rule must be a rule for rows, .* found AcrossRanks"):
        Bridge([torch.nn.Parameter(torch.ones(2))], [[1], [0]], n_hostile=0, rule=AcrossRanks())
    return True
