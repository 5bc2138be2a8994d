"""An optimizer's step for gradients that are always in the same place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

#: Optimizers that take gradients from the parameters and change these in place.
IN_PLACE = frozenset({torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adagrad})
#: Where an optimizer has hooks around its steps.
HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether something of a user's own takes part in an optimizer's steps: hooks, or methods put in front."""
    step: Any = vars(optimizer).get("step")
    # Schedulers count steps, by a function around the optimizer's own method, which early versions of torch don't name.
    is_counted = hasattr(step, "_wrapped_by_lr_sched") and any(
        cell.cell_contents is type(optimizer).step for cell in step.__closure__ or ()
    )
    hooked = any(getattr(optimizer, name, True) for name in HOOKS)
    hooked = hooked or bool(_global_optimizer_pre_hooks or _global_optimizer_post_hooks)
    return hooked or "zero_grad" in vars(optimizer) or not (step is None or is_counted)


def in_place_step(
    optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor], gradients: list[torch.Tensor]
) -> Callable[[], Any]:
    """Find what an optimizer's step does to all of its parameters, which have these gradients, without looking at them.

    What surrounds torch's kernel for Adam takes several times as long as the kernel, for a small network.
    """
    if type(optimizer) is not torch.optim.Adam:
        return optimizer.step
    (group,) = optimizer.param_groups
    states = [optimizer.state[parameter] for parameter in parameters]
    known = all({"exp_avg", "exp_avg_sq", "step"} <= state.keys() for state in states)
    plain = group.get("fused") and not (group.get("amsgrad") or group.get("capturable") or group.get("differentiable"))
    # A scheduler puts a step of its own in front, which counts.
    if group.get("decoupled_weight_decay") or "step" in vars(optimizer) or has_hooks(optimizer):
        return optimizer.step
    if not (known and plain and isinstance(group["lr"], float) and len(group["params"]) == len(parameters)):
        return optimizer.step
    averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))

    if not (all(isinstance(beta, float) for beta in group["betas"]) and len({each.dtype for each in parameters}) == 1):
        return optimizer.step

    # NumPy's, in the same memory: torch's addition takes longer than all else.
    counts = [each.numpy() for each in steps]

    def step() -> None:
        beta1, beta2 = group["betas"]
        for count in counts:
            np.add(count, 1.0, out=count)
        with torch.no_grad():
            torch._fused_adam_(
                parameters,
                gradients,
                averages,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
            )

    return step
