"""Where steps of DDP begin and end, told from buckets that it hands over."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from skbgmd._utils.random import seeded
from skbgmd.distributed.static_graph import StepOfBuckets, sparse_layers


class Bucket:
    """What a communication hook is handed, in so far as steps are told by it."""

    def __init__(self, index: int, n_buckets: int, *parameters: torch.Tensor) -> None:
        self._index, self._n_buckets, self._parameters = index, n_buckets, list(parameters)

    def index(self) -> int:
        return self._index

    def is_last(self) -> bool:
        return self._index == self._n_buckets - 1

    def parameters(self) -> list[torch.Tensor]:
        return self._parameters


@pytest.fixture
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def three_dtypes() -> torch.nn.Sequential:
    dtypes = torch.float32, torch.float64, torch.bfloat16
    with seeded(0, "cpu"):
        net = torch.nn.Sequential(*(torch.nn.Linear(2, 2, dtype=dtype) for dtype in dtypes))
    net[1].bias.requires_grad_(False)
    return net


def seen(step: StepOfBuckets, buckets: list[Bucket]) -> list[tuple[bool, bool]]:
    return [(step.begins(bucket), step.ends(bucket)) for bucket in buckets]


def without_numbers(net: torch.nn.Module) -> list[Bucket]:
    """Buckets by dtype, as those of a static graph's first step."""
    return [Bucket(0, 3, *(p for p in layer.parameters() if p.requires_grad)) for layer in net]


@pytest.mark.usefixtures("one_rank")
def test_a_static_graphs_first_step_ends_with_its_last_parameter():
    net = three_dtypes()
    wrapper = DistributedDataParallel(net, static_graph=True)
    step, first = StepOfBuckets(), without_numbers(net)
    whole = [(True, False), (False, False), (False, True)]
    assert seen(step, first) == whole
    later = [Bucket(index, 3, *each.parameters()) for index, each in enumerate(first)]
    assert seen(step, later) == whole
    assert seen(step, later[::-1]) == [(False, True), (False, False), (True, False)]
    assert wrapper.static_graph


@pytest.mark.usefixtures("one_rank")
def test_a_new_wrapper_has_a_first_step_of_its_own():
    net, step = three_dtypes(), StepOfBuckets()
    for _ in range(2):
        wrapper = DistributedDataParallel(net, static_graph=True)
        assert seen(step, without_numbers(net)) == [(True, False), (False, False), (False, True)]
        del wrapper
        gc.collect()


@pytest.mark.usefixtures("one_rank")
def test_buckets_with_numbers_are_told_by_them():
    net, step = three_dtypes(), StepOfBuckets()
    wrapper = DistributedDataParallel(net)
    buckets = [Bucket(index, 3, *each.parameters()) for index, each in enumerate(without_numbers(net))]
    for _ in range(2):
        assert seen(step, buckets) == [(True, False), (False, False), (False, True)]
    # One that was cut short.
    assert seen(step, buckets[:1] + buckets) == [(True, False), (True, False), (False, False), (False, True)]
    assert not wrapper.static_graph


@pytest.mark.usefixtures("one_rank")
def test_layers_with_sparse_gradients_are_told_as_ddp_tells_them():
    with seeded(0, "cpu"):
        layers = {
            "sparse": torch.nn.Embedding(3, 2, sparse=True),
            "bag": torch.nn.EmbeddingBag(3, 2, sparse=True),
            "dense": torch.nn.Embedding(3, 2),
            "frozen": torch.nn.Embedding(3, 2, sparse=True).requires_grad_(False),
        }
    net = torch.nn.ModuleDict(layers)
    wrapper = DistributedDataParallel(net)
    assert sparse_layers(wrapper) == ["sparse", "bag"]
    step = StepOfBuckets()
    assert step.wrapper_of(net["dense"].weight) is wrapper
    assert step.wrapper_of(torch.nn.Parameter(torch.ones(1))) is None
    assert sparse_layers(DistributedDataParallel(net["sparse"])) == ["Embedding"]


def test_parameters_without_a_wrapper_are_told_by_numbers():
    parameter = torch.nn.Parameter(torch.ones(2))
    assert seen(StepOfBuckets(), [Bucket(0, 2, parameter), Bucket(1, 2, parameter)]) == [(True, False), (False, True)]
    assert seen(StepOfBuckets(), [Bucket(0, 1, parameter)]) == [(True, True)]
