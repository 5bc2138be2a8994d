"""FSDP2 with a robust reduce-scatter: steps of one process, with a rule for each parameter group."""

from __future__ import annotations

import copy
import os
import signal
import time
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from processes import on_ranks
from skbgmd._utils.random import seeded
from skbgmd.aggregators import BlockGeometricMedian, Bucketing, HuberMean, NonFiniteRowsError, get_aggregator
from skbgmd.distributed import RankLostError, RobustReduceScatter, robust_fully_sharded
from skbgmd.distributed.fsdp import NamedAllGather
from skbgmd.rows import DenseRows

fsdp = pytest.importorskip("torch.distributed.fsdp")
if not hasattr(getattr(fsdp, "FSDPModule", None), "set_custom_reduce_scatter"):
    pytest.skip("this torch's FSDP2 can't have another reduce-scatter", allow_module_level=True)

RULES: dict[str, Any] = {
    name: get_aggregator(name) for name in ("mean", "geometric_median", "krum", "coordinate_median", "spectral_filter")
}
RULES["huber"] = HuberMean()
RULES["buckets"] = Bucketing(HuberMean(), random_state=1)
#: What to shard as a group: modules by name, and settings.
SETUPS: dict[str, tuple[list[str], torch.dtype, dict[str, Any]]] = {
    "one group": ([""], torch.float32, {}),
    "each layer": (["0", "2", ""], torch.float32, {}),
    "float64": (["0", ""], torch.float64, {}),
    "half": ([""], torch.bfloat16, {}),
    "kept after forward": (["0", ""], torch.float32, {"reshard_after_forward": False}),
    "reduced in half": (["0", ""], torch.float32, {"mp_policy": {"reduce_dtype": torch.bfloat16}}),
    "reduced in float16": (["0", ""], torch.float32, {"mp_policy": {"reduce_dtype": torch.float16}}),
}


def net_of(dtype: torch.dtype) -> torch.nn.Sequential:
    with seeded(0, "cpu"):
        return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).to(dtype)


def batch(rank: int, step: int, dtype: torch.dtype) -> torch.Tensor:
    return (torch.randn(4, 5, generator=torch.Generator().manual_seed(10 * step + rank)) + 0.3 * rank).to(dtype)


def loss(net: Any, rank: int, step: int, dtype: torch.dtype) -> torch.Tensor:
    # The last rank is hostile.
    return net(batch(rank, step, dtype)).float().square().sum() * (-5.0 if rank == 2 else 1.0)


def sharded(names: list[str], net: torch.nn.Module, **settings: Any) -> torch.nn.Module:
    mesh = settings.pop("mesh", None) or init_device_mesh("cpu", (dist.get_world_size(),))
    if "mp_policy" in settings:
        settings["mp_policy"] = fsdp.MixedPrecisionPolicy(**settings["mp_policy"])
    for name in names:
        fsdp.fully_shard(net.get_submodule(name), mesh=mesh, **settings)
    return net


def train(rank: int, rule: Any, setup: str, n_steps: int) -> Any:
    names, dtype, settings = SETUPS[setup]
    net = sharded(names, net_of(dtype), **settings)
    groups = robust_fully_sharded(net, rule)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(n_steps):
        loss(net, rank, step, dtype).backward()
        optimizer.step()
        optimizer.zero_grad()
    parameters = {name: p.full_tensor().detach().double().numpy() for name, p in net.named_parameters()}
    return parameters, {name: group.weights_ for name, group in groups.items()}


def train_alone(rule: Any, setup: str, size: int, n_steps: int) -> Any:
    names, dtype, _ = SETUPS[setup]
    net, states, weights = net_of(dtype), dict.fromkeys(names), {}
    for step in range(n_steps):
        copies = [copy.deepcopy(net) for _ in range(size)]
        for rank, copied in enumerate(copies):
            loss(copied, rank, step, dtype).backward()
        taken: set[str] = set()
        for name in names:
            own = [n for n, _ in net.named_parameters() if n.startswith(name) and n not in taken]
            taken |= set(own)
            if not own:
                continue
            grads = [torch.cat([copied.get_parameter(n).grad.flatten() for n in own]) for copied in copies]
            aggregate, states[name] = rule(DenseRows(torch.stack(grads)), states[name])
            weights[name], start = aggregate.weights, 0
            for n in own:
                parameter = net.get_parameter(n)
                part = aggregate.vector[start : start + parameter.numel()].view_as(parameter)
                parameter.data -= 0.01 * part.to(dtype)
                start += parameter.numel()
    return {name: p.detach().double().numpy() for name, p in net.named_parameters()}, weights


def others(rank: int, size: int) -> Any:
    """Errors, blocks, and what is saved."""
    found: dict[str, Any] = {}

    def attempt(name: str, call: Any) -> None:
        try:
            found[name] = call()
        except (RuntimeError, ValueError, TypeError) as error:
            found[name] = type(error).__name__, str(error)

    hybrid = init_device_mesh("cpu", (1, size), mesh_dim_names=("replicate", "shard"))
    attempt("hybrid", lambda: robust_fully_sharded(sharded([""], net_of(torch.float32), mesh=hybrid)))
    attempt("plain", lambda: robust_fully_sharded(net_of(torch.float32)))
    attempt("no module", lambda: robust_fully_sharded(3))
    attempt("rule", lambda: robust_fully_sharded(sharded([""], net_of(torch.float32)), "median"))

    def in_part() -> list[str]:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            robust_fully_sharded(sharded(["2"], net_of(torch.float32)))
        return [str(each.message) for each in noted if each.category is UserWarning]

    attempt("in part", in_part)

    def with_nan() -> None:
        net = sharded([""], net_of(torch.float32))
        robust_fully_sharded(net)
        (net(batch(rank, 0, torch.float32)).sum() * (torch.nan if rank else 1.0)).backward()

    attempt("nan", with_nan)

    def divided() -> None:
        net = sharded([""], net_of(torch.float32))
        robust_fully_sharded(net)
        net.set_gradient_divide_factor(2.0)
        net(batch(rank, 0, torch.float32)).sum().backward()

    attempt("divided", divided)
    # Together in one group: one set of weights, by the first one's name.
    net, mesh = net_of(torch.float32), init_device_mesh("cpu", (size,))
    fsdp.fully_shard([net[0], net[2]], mesh=mesh)
    fsdp.fully_shard(net, mesh=mesh)
    groups = robust_fully_sharded(net, HuberMean())
    loss(net, rank, 0, torch.float32).backward()
    found["grouped"] = {name: group.n_steps_ for name, group in groups.items()}
    # A block with a memory: the same seeds, and a training that goes on.
    rule = BlockGeometricMedian(0.4, complement="memory", selection="sample")
    first = sharded([""], net_of(torch.float32))
    group = robust_fully_sharded(first, rule)[""]
    loss(first, rank, 0, torch.float32).backward()
    second = sharded([""], net_of(torch.float32))
    resumed = robust_fully_sharded(second, rule)[""]
    resumed.load_state_dict(group.state_dict())
    gradients = []
    for net in (first, second):
        net.zero_grad()
        loss(net, rank, 1, torch.float32).backward()
        gradients.append(torch.cat([p.grad.full_tensor().flatten() for p in net.parameters()]).numpy())
    found["resumed"] = gradients, (group.n_steps_, resumed.n_steps_), group.exchange_.size
    return found


def every(rank: int, size: int) -> Any:
    found = {("each layer", name): train(rank, rule, "each layer", 3) for name, rule in RULES.items()}
    found |= {(setup, "huber"): train(rank, HuberMean(), setup, 3) for setup in SETUPS}
    return found, others(rank, size)


@lru_cache
def ranks() -> Any:
    return on_ranks(every, 3)


CASES = list(dict.fromkeys([("each layer", name) for name in RULES] + [(setup, "huber") for setup in SETUPS]))


@pytest.mark.parametrize(("setup", "rule"), CASES)
def test_fsdp_trains_as_one_process_does_with_a_rule_for_each_group(setup, rule):
    parameters, weights = train_alone(RULES[rule], setup, 3, 3)
    is_rough = "half" in setup or "float16" in setup
    for found, _ in ranks():
        trained, own = found[setup, rule]
        for name, expected in parameters.items():
            np.testing.assert_array_equal(trained[name], ranks()[0][0][setup, rule][0][name])
            np.testing.assert_allclose(trained[name], expected, atol=5e-2 if is_rough else 1e-5)
        for name, expected in weights.items():
            if expected is None:
                assert own[name] is None
            else:
                np.testing.assert_allclose(own[name], expected, atol=5e-2 if is_rough else 1e-5)


def test_groups_have_weights_of_their_own():
    weights = ranks()[0][0]["each layer", "huber"][1]
    assert list(weights) == ["", "0", "2"]
    assert weights[""] is None  # it has no parameters of its own
    assert not np.allclose(weights["0"], weights["2"], atol=1e-4)


def test_what_does_not_fit_is_refused():
    for _, found in ranks():
        assert found["hybrid"][0] == "ValueError"
        assert "replicated over one, as by HSDP" in found["hybrid"][1]
        assert found["in part"] == [
            "All parameters must be of a module that fully_shard was called on before; found 0.weight, 0.bias of none. "
            "They aren't reduced, or by a later fully_shard as a plain average."
        ]
        assert found["plain"] == (
            "ValueError",
            "model must have been sharded by fully_shard; found no module that was.",
        )
        assert found["no module"] == ("TypeError", "model must be a Module; found int.")
        assert found["rule"][0] == "ValueError"
        assert found["nan"][0] == NonFiniteRowsError.__name__
        assert found["divided"][0] == "ValueError"
        assert found["divided"][1] == (
            "FSDP2 must ask for an average or a sum; found PREMUL_SUM by 0.5 (set_gradient_divide_factor(2))."
        )


def test_modules_that_are_sharded_together_have_one_group():
    for _, found in ranks():
        assert found["grouped"] == {"": 0, "0": 1}


def test_a_resumed_training_goes_on_identically_with_fsdp():
    for _, found in ranks():
        (first, second), steps, size = found["resumed"]
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, ranks()[0][1]["resumed"][0][0])
        assert 0 < (first != 0).sum() < len(first)
        assert steps == (2, 2)
        assert size == 3


def test_blocks_of_units_are_refused():
    with pytest.raises(ValueError, match="rule must choose coordinates"):
        RobustReduceScatter(BlockGeometricMedian(0.1, block="unit"))


def test_an_older_torch_is_refused(monkeypatch):
    monkeypatch.delattr(fsdp.FSDPModule, "set_custom_reduce_scatter")
    with pytest.raises(RuntimeError, match=r"needs a torch with FSDPModule\.set_custom_reduce_scatter"):
        robust_fully_sharded(net_of(torch.float32))


def lose_rank(rank: int, size: int, setting: str) -> Any:
    net = sharded(["0", ""], net_of(torch.float32))
    robust_fully_sharded(net)
    if setting == "asynchronous":
        net._set_unshard_async_op(True)
    loss(net, rank, 0, torch.float32).backward()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(RankLostError) as caught:
        loss(net, rank, 1, torch.float32).backward()
    return caught.value.missing, caught.value.collective, time.monotonic() - begin


@pytest.mark.parametrize("setting", ["plain", "asynchronous"])
def test_a_rank_that_is_killed_is_named(setting):
    first, _, last = on_ranks(lose_rank, 3, setting, lost={1})
    for missing, collective, seconds in (first, last):
        assert missing == (1,)
        assert collective == "all_gather"
        assert seconds < 5.0


def raise_alone(rank: int, size: int, late: bool) -> Any:
    def on_step(weights: Any) -> None:
        if rank == 1 and not late:
            raise ValueError("no space left")

    net = sharded(["0", ""], net_of(torch.float32))
    groups = robust_fully_sharded(net, "worker_memory", on_step=on_step)
    begin = time.monotonic()
    if late:
        loss(net, rank, 0, torch.float32).backward()
        if rank == 1:
            groups["0"].load_state_dict(groups["0"].state_dict())
    with pytest.raises((RankLostError, ValueError)) as caught:
        loss(net, rank, 1, torch.float32).backward()
    seconds = time.monotonic() - begin
    time.sleep(3.0 * (rank == 1 and not late))
    return str(caught.value), seconds


def test_an_error_of_one_rank_reaches_all():
    # They can't meet afterwards, which "lost" says.
    first, second, last = on_ranks(raise_alone, 3, False, lost={3})
    assert second[0] == "no space left"
    for message, seconds in (first, last):
        assert message.startswith("Rank 1 failed by an error of its own: ValueError: no space left. So ")
        assert seconds < 3.5


def test_ranks_agree_before_gradients_travel():
    for message, seconds in on_ranks(raise_alone, 3, True, lost={3}):
        assert message.startswith("All ranks must take part in the same collectives; found to_shards of ")
        assert "(the agreement before a first step, or after load_state_dict)" in message
        assert seconds < 5.0


def own_all_gather(rank: int, size: int) -> Any:
    calls = []

    class Own(NamedAllGather):
        def __call__(self, *args: Any, **named: Any) -> Any:
            calls.append(1)
            return super().__call__(*args, **named)

    net = sharded([""], net_of(torch.float32))
    net.set_custom_all_gather(Own(net._get_fsdp_state()._fsdp_param_groups[0]._all_gather_comm))
    robust_fully_sharded(net)
    loss(net, rank, 0, torch.float32).backward()
    return len(calls)


@pytest.mark.skipif(not hasattr(fsdp.FSDPModule, "set_custom_all_gather"), reason="this torch's all-gather is fixed")
def test_an_all_gather_of_a_users_own_is_kept():
    assert all(on_ranks(own_all_gather, 2))
