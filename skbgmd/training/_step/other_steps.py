"""Training steps besides the robust one, which would take its place or be lost: they are refused."""

from __future__ import annotations

from skorch import NeuralNet
from skorch.hf import AccelerateMixin

from skbgmd.training._step.robust_step import RobustStep

#: Methods that skorch calls to take a step.
STEPS = ("train_step", "train_step_single")


def refuse_other_steps(kind: type) -> None:
    """Refuse a class of nets that has a training step besides the robust one.

    Raises
    ------
    TypeError
        There is one behind the robust step, or accelerate's.
    """
    if issubclass(kind, AccelerateMixin):
        raise TypeError(
            f"A robust net must take its gradients itself, a row for each group, which accelerate's training step "
            f"doesn't; found {kind.__name__}, which has skorch's AccelerateMixin."
        )
    order = kind.__mro__
    for position, base in enumerate(order):
        of_skorch = base in NeuralNet.__mro__ or position <= order.index(RobustStep)
        steps = STEPS if position > order.index(NeuralNet) else STEPS[1:]
        found = [] if of_skorch else [name for name in steps if name in vars(base)]
        if found:
            raise TypeError(
                f"A net to be made robust must have skorch's own training step, which the robust step replaces; found "
                f"{base.__name__}.{found[0]}. Put what it does to the loss into get_loss, or override the step of the "
                f"robust net and call super().train_step_single."
            )


def refuse_skipped_step(kind: type) -> None:
    """Refuse a step in front of the robust one that was taken without it.

    Raises
    ------
    TypeError
        Always.
    """
    order = kind.__mro__
    in_front = order[: order.index(RobustStep)]
    steps = [f"{base.__name__}.{name}" for base in in_front for name in STEPS if name in vars(base)]
    raise TypeError(
        f"The training step must be the robust net's: gradients would be plain ones; found one that doesn't call "
        f"super().train_step_single: {', '.join(steps)}."
    )
