"""RSA, robust stochastic aggregation: ranks keep models of their own and pull at a common one by signs alone."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self

import torch

from skbgmd._utils.checks import FLOATS, check_number, check_tensor
from skbgmd.distributed.buckets import described
from skbgmd.distributed.exchange import Exchange, as_bytes
from skbgmd.distributed.faults import telling_others
from skbgmd.distributed.ranks import plain_ranks
from skbgmd.training._ranks import named

#: Bytes that ranks compare in each step.
_MARK_BYTES = 5


class RankOptimizer(torch.optim.Optimizer):
    """An optimizer of several ranks: a deep copy has the same group, which isn't pickled.

    What comes of a pickle takes part in the default group, unless it is given another ``exchange``.
    """

    #: Attributes that copies have, besides those of torch's optimizers.
    _kept: ClassVar[tuple[str, ...]] = ()
    _exchange: Exchange | None = None

    @property
    def exchange(self) -> Exchange:
        """The ranks."""
        if self._exchange is None:
            self._exchange = Exchange()
        return self._exchange

    @exchange.setter
    def exchange(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self._kept}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        if self._exchange is not None:
            twin.exchange = Exchange(self._exchange.group, self._exchange.transport_dtype)
        return twin

    def _loss_of(self, closure: Callable[[], Any] | None) -> Any:
        """The loss of a step, None without a closure; an error in it is told to the other ranks, which wait."""
        if closure is None:
            return None
        with torch.enable_grad(), telling_others(self.exchange.group):
            return closure()


class RSA(RankOptimizer):
    r"""Train on several ranks by exchanging the signs of differences between models: Byzantine-robust RSA.

    Each rank k has a model :math:`x_k` of its own, and all of them the same master model :math:`x_0`:

    .. math::
        x_k &\leftarrow x_k - \eta \left(\nabla f_k(x_k) + \lambda \operatorname{sign}(x_k - x_0)\right) \\
        x_0 &\leftarrow x_0 - \eta \Bigl(\rho x_0 + \lambda \sum_k \operatorname{sign}(x_0 - x_k)\Bigr)

    That is subgradient descent on :math:`\sum_k f_k(x_k) + \tfrac{\rho}{2} \lVert x_0 \rVert^2 + \lambda \sum_k
    \lVert x_k - x_0 \rVert_1`. The method is that of Li, Xu, Chen, Giannakis and Ling (2019), "RSA: Byzantine-robust
    stochastic aggregation methods for distributed learning from heterogeneous datasets".

    Use it

    - if some ranks are hostile and the honest ranks' data are unlike: a robust mean of gradients then takes the ranks
      with the rarest data for hostile;
    - if you want a bound that needs no assumption on what ranks send: in a step a rank moves each coordinate of the
      master by at most :math:`\eta \lambda`.

    It costs

    - communication: a byte for each parameter to each other rank;
    - memory: the master, and a byte for each parameter of each rank;
    - accuracy: steps of signs have one size, however far the master still has to go, so the learning rate must fall for
      it to settle. Ranks whose data are unlike need a large λ to agree. Where the master settles, q hostile ranks move
      it by an amount that grows with :math:`\lambda q`.

    Parameters
    ----------
    params : iterable
        Parameters of this rank's model. All ranks begin with those of the first rank.
    lr : float, default=0.01
        Learning rate η, the same on all ranks; a scheduler of torch may change it.
    penalty : float, default=0.01
        Weight λ of the differences, the same on all ranks. It bounds the harm that a rank can do, and also what the
        others can learn from it. If it is at least the largest derivative of any :math:`f_k` at the optimum, models
        agree exactly there; if it is less, they stay apart.
    weight_decay : float, default=0.0
        Weight ρ of the master's squared norm, the paper's :math:`f_0`.
    group : ProcessGroup, default=None
        Ranks that take part. None: all of them.

    Attributes
    ----------
    exchange : Exchange
        The ranks. ``exchange.traffic.sent`` has the number of bytes that this rank has sent.

    Raises
    ------
    TypeError, ValueError
        If a parameter isn't a number, or is out of its range. On all ranks: if shapes of parameters differ between
        ranks; in a step, if settings differ, or if a state was loaded on some of the ranks only.
    RankLostError
        In a step: if a rank doesn't answer.

    Notes
    -----
    Evaluate and keep the master's model: at the end of a training, ``optimizer.load_master()`` puts it in the place of
    this rank's model. ``state_dict()`` contains the master.

    A coordinate that is NaN in a rank's model has no influence. Buffers, such as those of batch normalization, stay
    each rank's own. ``torch.amp.GradScaler`` doesn't work with it: it skips a step of one rank alone, for which the
    others wait.

    A deep copy has the same group. The group isn't pickled: an unpickled optimizer takes part in the default group,
    unless its ``exchange`` is set.

    Examples
    --------
    One rank, without a process group:

    >>> import torch
    >>> from skbgmd.distributed import RSA
    >>> model = torch.nn.Linear(1, 1)
    >>> optimizer = RSA(model.parameters(), lr=0.05, penalty=0.5)
    >>> X = torch.linspace(-1.0, 1.0, 20)[:, None]
    >>> for step in range(400):
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.mse_loss(model(X), 3.0 * X).backward()
    ...     optimizer.step()
    >>> optimizer.load_master()
    >>> bool((model.weight - 3.0).abs() < 0.1)
    True
    """

    _kept = ("_is_loaded",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        penalty: float = 0.01,
        weight_decay: float = 0.0,
        group: Any = None,
    ) -> None:
        self.exchange = Exchange(group)
        with telling_others(self.exchange.group):
            _check_settings(lr, penalty, weight_decay)
            super().__init__(params, {"lr": lr, "penalty": penalty, "weight_decay": weight_decay})
        #: A state was loaded, and no step taken since.
        self._is_loaded = False
        self._begin([parameter for parameter, _ in self._each()])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with settings of their own; on all ranks, which begin with those of the first rank."""
        with telling_others(self.exchange.group):
            super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            with telling_others(self.exchange.group):
                _check_settings(**_settings(group))
                for parameter in group["params"]:
                    check_tensor(parameter, "params", FLOATS)
            # Those of the constructor all begin at once.
            if "_is_loaded" in vars(self):
                self._begin(group["params"])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _begin(self, parameters: list[torch.Tensor]) -> None:
        """Begin with the first rank's parameters, which are the master's."""
        if self.exchange.size > 1:
            # By an exchange of its own, for the bytes of steps to be counted alone.
            ranks = plain_ranks(self.exchange.group)
            ranks.check_same([described(parameter) for parameter in parameters], "The shapes of params in RSA")
            ranks.make_equal(parameters)
        for parameter in parameters:
            self.state[parameter]["master"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of this rank's model and of the master; all ranks take it together.

        Parameters
        ----------
        closure : callable, default=None
            Computes the loss and its gradients, as for other optimizers of torch.
        """
        loss = self._loss_of(closure)
        each = [(parameter, self.state[parameter]["master"], group) for parameter, group in self._each()]
        own = torch.cat([signs(parameter, master).flatten() for parameter, master, _ in each])
        every = self._compared(self.exchange.gather(torch.cat([own, self._mark(own.device)])))
        parts = torch.split(every, [parameter.numel() for parameter, _, _ in each], dim=1)
        for (parameter, master, group), sent in zip(each, parts, strict=True):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            moved = worker_step(parameter, master, gradient, lr=group["lr"], penalty=group["penalty"])
            master.copy_(master_step(master, sent.view(len(sent), *master.shape), **_settings(group)))
            parameter.copy_(moved)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict()`` returned, on all ranks before the next step.

        Raises
        ------
        ValueError
            If it is the state of another optimizer, without a master, or of other parameters.
        """
        places = [place for group in state_dict["param_groups"] for place in group["params"]]
        masters = [state_dict["state"].get(place, {}).get("master") for place in places]
        if without := sum(master is None for master in masters):
            raise ValueError(
                f"state_dict must be of RSA, with the master of each parameter; found none for {without} of "
                f"{len(places)}."
            )
        own = [parameter.shape for parameter, _ in self._each()]
        if len(own) == len(masters) and (odd := [i for i, shape in enumerate(own) if masters[i].shape != shape]):
            raise ValueError(
                f"state_dict must be of parameters of the same shapes; found {tuple(masters[odd[0]].shape)} for one of "
                f"{tuple(own[odd[0]])}."
            )
        super().load_state_dict(state_dict)
        # Torch takes the tensors of a state as they are; a step changes the master in place.
        for parameter, _ in self._each():
            self.state[parameter]["master"] = self.state[parameter]["master"].clone()
        self._is_loaded = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"_is_loaded": False, **state})

    def _mark(self, device: torch.device) -> torch.Tensor:
        """Mark of a step: a checksum of the settings, and whether a state was loaded; five bytes beside the signs."""
        settings = zlib.crc32(repr([_settings(group) for group in self.param_groups]).encode())
        mark = settings.to_bytes(4, "little") + bytes([self._is_loaded])
        return torch.frombuffer(bytearray(mark), dtype=torch.int8).to(device)

    def _compared(self, every: torch.Tensor) -> torch.Tensor:
        """The signs of all ranks, after a look whether all have loaded a state, or none, and the same settings."""
        signs_of_all, marks = every[:, :-_MARK_BYTES], every[:, -_MARK_BYTES:].tolist()
        if self.exchange.size > 1:
            # What ranks compare isn't counted.
            self.exchange.traffic.sent -= _MARK_BYTES * (self.exchange.size - 1)
            if any(mark[:-1] != marks[0][:-1] for mark in marks):
                found = {f"group {i}": _settings(group) for i, group in enumerate(self.param_groups)}
                plain_ranks(self.exchange.group).check_same(found, "Settings of RSA")
            loaded = [rank for rank, mark in enumerate(marks) if mark[-1]]
            if 0 < len(loaded) < self.exchange.size:
                raise ValueError(f"A state must be loaded on all ranks or none; found one on {named(loaded)} alone.")
            if loaded:
                masters = [self.state[parameter]["master"] for parameter, _ in self._each()]
                prints = [zlib.crc32(as_bytes(master.contiguous()).cpu().numpy().tobytes()) for master in masters]
                plain_ranks(self.exchange.group).check_same(prints, "Checksums of the master that states hold")
        self._is_loaded = False
        return signs_of_all

    @torch.no_grad()
    def load_master(self) -> None:
        """Put the master's parameters in the place of this rank's own."""
        for parameter, _ in self._each():
            parameter.copy_(self.state[parameter]["master"])

    def _each(self) -> list[tuple[torch.Tensor, dict[str, Any]]]:
        return [(parameter, group) for group in self.param_groups for parameter in group["params"]]


def rsa_step(
    workers: torch.Tensor,
    master: torch.Tensor,
    gradients: torch.Tensor,
    *,
    lr: float,
    penalty: float,
    weight_decay: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take a step of RSA for all workers and the master in one process, for example to simulate federated clients.

    Parameters
    ----------
    workers : tensor of shape (n, d)
        Models of the workers; those of hostile workers may hold anything.
    master : tensor of shape (d,)
        Model of the master.
    gradients : tensor of shape (n, d)
        Gradient of each worker's loss at its model.
    lr, penalty, weight_decay
        As in :class:`RSA`.

    Returns
    -------
    workers : tensor of shape (n, d)
        Models of the workers after the step.
    master : tensor of shape (d,)
        Model of the master after the step.

    Raises
    ------
    TypeError, ValueError
        If a parameter isn't a number, or is out of its range, or if models or gradients have other shapes.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.distributed.rsa import rsa_step
    >>> workers, master = torch.tensor([[1.0], [2.0], [float("nan")]]), torch.tensor([0.0])
    >>> rsa_step(workers, master, torch.zeros(3, 1), lr=0.1, penalty=1.0)[1]
    tensor([0.2000])
    """
    _check_settings(lr, penalty, weight_decay)
    check_models(workers, "workers", gradients)
    if not isinstance(master, torch.Tensor) or master.shape != workers.shape[1:]:
        found = f"shape {tuple(master.shape)}" if isinstance(master, torch.Tensor) else type(master).__name__
        raise ValueError(f"master must be a tensor of shape {tuple(workers.shape[1:])}; found {found}.")
    moved = worker_step(workers, master, gradients, lr=lr, penalty=penalty)
    return moved, master_step(master, signs(workers, master), lr=lr, penalty=penalty, weight_decay=weight_decay)


def check_models(models: Any, name: str, gradients: Any) -> None:
    """Check models (n, d) of a process that simulates all nodes, and the gradients of each.

    Raises
    ------
    TypeError, ValueError
    """
    for values, called in ((models, name), (gradients, "gradients")):
        if not isinstance(values, torch.Tensor):
            raise TypeError(f"{called} must be a tensor of shape (n, d); found {type(values).__name__}.")
        check_tensor(values, called, FLOATS)
    if models.ndim != 2 or gradients.shape != models.shape:
        raise ValueError(
            f"{name} and gradients must both have shape (n, d); found {tuple(models.shape)} and "
            f"{tuple(gradients.shape)}."
        )


def signs(worker: torch.Tensor, master: torch.Tensor) -> torch.Tensor:
    """Signs of the differences of models from the master, int8; zero where there is no number."""
    return torch.sign(worker - master).nan_to_num_(0.0).to(torch.int8)


def worker_step(
    worker: torch.Tensor, master: torch.Tensor, gradient: torch.Tensor, *, lr: float, penalty: float
) -> torch.Tensor:
    """Move models down their gradients and, by the signs of the differences, towards the master."""
    # A sparse gradient can only be added to something.
    return worker - lr * (penalty * torch.sign(worker - master) + gradient)


def master_step(
    master: torch.Tensor, sent: torch.Tensor, *, lr: float, penalty: float, weight_decay: float
) -> torch.Tensor:
    """Move the master (...) by the signs (n, ...) that workers sent, int8; more than a sign counts as one."""
    pulls = sent.sign().sum(dim=0, dtype=torch.int32).to(master.dtype)
    return master - lr * (weight_decay * master - penalty * pulls)


def _check_settings(lr: Any, penalty: Any, weight_decay: Any) -> None:
    check_number(lr, "lr")
    check_number(penalty, "penalty")
    check_number(weight_decay, "weight_decay", at_least=0.0)


def _settings(group: dict[str, Any]) -> dict[str, float]:
    return {name: group[name] for name in ("lr", "penalty", "weight_decay")}
