"""Communication hooks of models that accelerate, Fabric and Lightning prepare: where they are taken, and where not.

The hook here gives the largest gradient of the ranks, which is told from the mean that each of them takes otherwise.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from processes import on_ranks

pytestmark = pytest.mark.slow  # many processes start


def largest(state, bucket):  # torch looks at annotations, and refuses those that are text
    state["calls"] = state.get("calls", 0) + 1
    work = dist.all_reduce(bucket.buffer(), dist.ReduceOp.MAX, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def as_torchrun(rank: int, size: int) -> None:
    """What torchrun tells its processes."""
    given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
    given |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in given.items()})


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1, bias=False)


def gradient(model: Any, rank: int, backward: Any = torch.Tensor.backward) -> float:
    """Gradient of the weight: 1 on the first rank, 3 on the second, 2 in the mean."""
    backward(model(torch.tensor([[1.0 + 2.0 * rank]])).sum())
    return next(iter(model.parameters())).grad.item()


def with_accelerate(rank: int, size: int) -> Any:
    as_torchrun(rank, size)
    from accelerate import Accelerator, DistributedDataParallelKwargs

    state: dict[str, int] = {}
    accelerator = Accelerator(cpu=True)
    plain = gradient(accelerator.prepare(network()), rank, accelerator.backward)
    model = accelerator.prepare(network())
    model.register_comm_hook(state, largest)
    hooked = gradient(model, rank, accelerator.backward)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(comm_hook=largest)])
    by_argument = gradient(accelerator.prepare(network()), rank, accelerator.backward)
    return plain, hooked, state["calls"], by_argument


def test_accelerate_takes_hooks_of_the_prepared_model_only():
    pytest.importorskip("accelerate")
    for plain, hooked, calls, by_argument in on_ranks(with_accelerate, 2):
        assert (plain, hooked, calls) == (2.0, 3.0, 1)
        # Another than the hooks that it knows by name is ignored.
        assert by_argument == 2.0


def with_fabric(rank: int, size: int) -> Any:
    as_torchrun(rank, size)
    warnings.simplefilter("ignore")
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    state: dict[str, int] = {}

    class Hooked(DDPStrategy):
        def setup_module(self, module: Any) -> Any:
            model = super().setup_module(module)
            model.register_comm_hook(state, largest)
            return model

    found: list[Any] = []
    for strategy in (DDPStrategy(), Hooked(), DDPStrategy(ddp_comm_hook=largest)):
        fabric = Fabric(accelerator="cpu", devices=size, strategy=strategy)
        fabric.launch()
        try:
            found.append(gradient(fabric.setup(network()), rank, fabric.backward))
        except TypeError as error:
            found.append(str(error))
    return (*found, state["calls"])


def test_fabric_takes_hooks_by_a_strategy():
    pytest.importorskip("lightning")
    for plain, hooked, by_argument, calls in on_ranks(with_fabric, 2):
        assert (plain, hooked, calls) == (2.0, 3.0, 1)
        assert "ddp_comm_hook" in by_argument


def with_lightning(rank: int, size: int) -> Any:
    as_torchrun(rank, size)
    warnings.simplefilter("ignore")
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.found = network(), []

        def training_step(self, batch: Any, _: int) -> Any:
            return self.network(torch.tensor([[1.0 + 2.0 * rank]])).sum()

        def on_after_backward(self) -> None:
            self.found.append(self.network.weight.grad.item())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    from lightning.pytorch.strategies import DDPStrategy

    class Hooked(DDPStrategy):
        def configure_ddp(self) -> None:
            super().configure_ddp()
            self.model.register_comm_hook({}, largest)

    found = []
    for strategy in (DDPStrategy(ddp_comm_state={}, ddp_comm_hook=largest), Hooked()):
        module = Module()
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=size,
            strategy=strategy,
            max_steps=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, torch.utils.data.DataLoader([0, 1]))
        found += module.found
    return found


def test_lightning_ignores_hooks_on_cpu_but_of_a_strategy():
    pytest.importorskip("lightning")
    for found in on_ranks(with_lightning, 2):
        assert found == [2.0, 3.0]
