"""Corrupt gradients: attacks on some rows of a matrix of gradients, one row for each worker or group of samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skbgmd.arrays import check_choice, check_integer, check_number
from skbgmd.corruption.base import (
    Indices,
    check_share,
    corrupt_total,
    draw_rows,
    warn_hopeless,
)
from skbgmd.randomness import random_source, torch_generator

#: Columns that are brought to double precision at a time.
CHUNK = 8192

DIRECTIONS = ("std", "sign", "unit")
NON_FINITE = {"nan": math.nan, "inf": math.inf}


class GradientCorruption(BaseEstimator, ABC):
    r"""An attack on the rows of a matrix of gradients; inherit from it and write ``_replace``.

    Each call draws :math:`\lfloor \psi b \rfloor` of the b rows afresh and replaces them. An attack holds parameters
    only (``get_params``, ``set_params`` and ``sklearn.base.clone`` work); a call changes nothing in it.

    An attack that needs honest rows takes all rows where none is honest, for ``fraction=1``.
    """

    #: Whether the corrupt rows know the honest ones. A worker that acts alone knows only its own.
    omniscient: ClassVar[bool] = False

    fraction: float
    random_state: Any

    def __call__(self, gradients: torch.Tensor, random_state: Any = None) -> torch.Tensor:
        """Corrupt a copy of the gradients.

        Parameters
        ----------
        gradients : tensor of shape (b, d)
            A gradient in each row, of a floating dtype, on any device.
        random_state : int, RandomState, Generator or None, default=None
            Source of the draws, instead of the one given to the constructor. To draw other rows at every step, hand
            in one source at all of them. None: the constructor's; if that is None too, another one each time.

        Returns
        -------
        corrupt : tensor of shape (b, d)
            Rows that weren't drawn are as they were, bit by bit.

        Raises
        ------
        TypeError, ValueError
            A parameter of the wrong kind or out of its range; gradients that aren't a matrix of floating numbers.
        """
        self._check(gradients)
        copy = gradients.detach().clone()
        self._corrupt(copy, random_state)
        return copy

    def apply_(self, gradients: torch.Tensor, random_state: Any = None) -> torch.Tensor:
        """Corrupt the gradients in place.

        Parameters
        ----------
        gradients : tensor of shape (b, d)
            As for a call; its rows are overwritten. Nothing is recorded for autograd.
        random_state : int, RandomState, Generator or None, default=None
            As for a call.

        Returns
        -------
        corrupted : tensor of shape (c,), int64
            Indices of the rows that were replaced, ascending; on the gradients' device.

        Raises
        ------
        TypeError, ValueError
            As for a call.
        """
        self._check(gradients)
        return self._corrupt(gradients, random_state)

    def _check(self, gradients: torch.Tensor) -> None:
        check_share(self.fraction, "fraction")
        self._check_parameters()
        if not isinstance(gradients, torch.Tensor) or not gradients.is_floating_point():
            found = gradients.dtype if isinstance(gradients, torch.Tensor) else type(gradients).__name__
            raise TypeError(f"gradients must be a tensor of a floating dtype; found {found}.")
        if gradients.ndim != 2 or 0 in gradients.shape:
            raise ValueError(
                f"gradients must have shape (b, d), with b and d positive; found {tuple(gradients.shape)}."
            )

    def _corrupt(self, gradients: torch.Tensor, random_state: Any) -> torch.Tensor:
        fraction, device, n = float(self.fraction), gradients.device, len(gradients)
        # This method, the door and its caller.
        warn_hopeless(fraction, stacklevel=4)
        rng = random_source(self.random_state if random_state is None else random_state)
        rows = draw_rows(self._eligible(n), corrupt_total(fraction, n), rng)
        corrupt = torch.from_numpy(rows).to(device)
        if len(rows):
            others = np.setdiff1d(np.arange(n), rows) if len(rows) < n else np.arange(n)
            with torch.no_grad():
                gradients[corrupt] = self._replace(gradients, corrupt, torch.from_numpy(others).to(device), rng)
        return corrupt

    def _check_parameters(self) -> None:
        """Check the parameters other than ``fraction``."""

    def _eligible(self, n: int) -> Indices:
        """Which of n rows may be drawn."""
        return np.arange(n)

    @abstractmethod
    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        """What to put in place of the corrupt rows.

        Parameters
        ----------
        gradients : tensor of shape (b, d)
            All gradients before the attack; not to be changed.
        corrupt : tensor of shape (c,), int64
            Rows to replace, at least one.
        honest : tensor of shape (h,), int64
            The other rows; all rows if there are no others.
        rng : RandomState
            Source of whatever is random.

        Returns
        -------
        replacement : tensor of shape (c, d) or (d,)
            Of the gradients' dtype, on their device; not a view of them.
        """


class BitFlip(GradientCorruption):
    r"""Scaled bit flip, :math:`g \to s g`: the corrupt gradients point the wrong way and are long.

    Gradient corruption of Acharya et al. (2022), after Bernstein et al. (2018), with :math:`s = -100`.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    scale : float, default=-100.0
        Factor s, finite.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import BitFlip
    >>> gradients = torch.arange(8.0).reshape(4, 2)
    >>> BitFlip(fraction=0.25, random_state=0)(gradients)
    tensor([[   0.,    1.],
            [   2.,    3.],
            [-400., -500.],
            [   6.,    7.]])
    >>> BitFlip(fraction=0.25).apply_(gradients, random_state=0)
    tensor([2])
    """

    def __init__(self, fraction: float = 0.2, scale: float = -100.0, random_state: Any = None) -> None:
        self.fraction, self.scale, self.random_state = fraction, scale, random_state

    def _check_parameters(self) -> None:
        check_number(self.scale, "scale", above=-math.inf)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients[corrupt].mul_(self.scale)


class AdditiveNoise(GradientCorruption):
    r"""Gaussian noise, :math:`g \to g + \sigma z` with :math:`z \sim N(0, I)`.

    Gradient corruption of Acharya et al. (2022), after Fu (1998) and Xie et al. (2019), with :math:`\sigma^2 = 100`.
    The same seed gives other noise on another kind of device.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    std : float, default=10.0
        Standard deviation σ, in units of the gradient's entries.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows and the noise, if a call isn't given another. None: another one each time, never the
        global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import AdditiveNoise
    >>> noisy = AdditiveNoise(fraction=0.4, random_state=0)(torch.zeros(10, 1000))
    >>> int((noisy.std(dim=1) > 9).sum()), int((noisy.std(dim=1) == 0).sum())
    (4, 6)
    """

    def __init__(self, fraction: float = 0.2, std: float = 10.0, random_state: Any = None) -> None:
        self.fraction, self.std, self.random_state = fraction, std, random_state

    def _check_parameters(self) -> None:
        check_number(self.std, "std")

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        noise = torch.randn(
            (len(corrupt), gradients.shape[1]),
            generator=torch_generator(rng, gradients.device),
            dtype=gradients.dtype,
            device=gradients.device,
        )
        return noise.mul_(self.std).add_(gradients[corrupt])


class SignFlip(GradientCorruption):
    r"""Sign flip, :math:`g \to -g`: the corrupt gradients have an ordinary length. Li et al. (2019), RSA.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import SignFlip
    >>> SignFlip(fraction=0.4, random_state=0)(torch.ones(3, 2))
    tensor([[ 1.,  1.],
            [ 1.,  1.],
            [-1., -1.]])
    """

    def __init__(self, fraction: float = 0.2, random_state: Any = None) -> None:
        self.fraction, self.random_state = fraction, random_state

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients[corrupt].neg_()


class ALittleIsEnough(GradientCorruption):
    r"""A little is enough (ALIE): :math:`g \to \mu - z \sigma`, hidden in the spread of the honest rows.

    Baruch et al. (2019). :math:`\mu` and :math:`\sigma` are mean and standard deviation of each column over the
    honest rows (divided by their number), and all corrupt rows are equal. Omniscient; Baruch et al. estimate both
    from the corrupt workers' own gradients.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    z : float, default=1.5
        How many standard deviations from the mean, finite.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import ALittleIsEnough
    >>> ALittleIsEnough(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[ 0.0000],
            [ 2.0000],
            [-0.5000]])
    """

    omniscient = True

    def __init__(self, fraction: float = 0.2, z: float = 1.5, random_state: Any = None) -> None:
        self.fraction, self.z, self.random_state = fraction, z, random_state

    def _check_parameters(self) -> None:
        check_number(self.z, "z", above=-math.inf)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        mean = mean_of_rows(gradients, honest)
        return mean.sub_(std_of_rows(gradients, honest, mean), alpha=self.z)


class InnerProduct(GradientCorruption):
    r"""Inner product manipulation: :math:`g \to -\epsilon \mu`, against the mean of the honest rows.

    Xie, Koyejo & Gupta (2020), *Fall of Empires*. Their small :math:`\epsilon` keeps the corrupt rows near the
    others. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    epsilon : float, default=1.1
        Length of the corrupt rows in lengths of the honest mean, positive.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import InnerProduct
    >>> InnerProduct(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[ 0.0000],
            [ 2.0000],
            [-1.1000]])
    """

    omniscient = True

    def __init__(self, fraction: float = 0.2, epsilon: float = 1.1, random_state: Any = None) -> None:
        self.fraction, self.epsilon, self.random_state = fraction, epsilon, random_state

    def _check_parameters(self) -> None:
        check_number(self.epsilon, "epsilon")

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return mean_of_rows(gradients, honest).mul_(-self.epsilon)


class Mimic(GradientCorruption):
    r"""Mimic: all corrupt rows copy one honest row, :math:`g \to g_t`, the same at every step.

    Karimireddy et al. (2022). No row is far from the others; but where the rows come from different distributions,
    the copied one counts for many. Omniscient: the corrupt rows see another's gradient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    target : int, default=0
        The row t to copy, less than b; it is never drawn itself, so at most b - 1 rows are.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import Mimic
    >>> Mimic(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    omniscient = True

    def __init__(self, fraction: float = 0.2, target: int = 0, random_state: Any = None) -> None:
        self.fraction, self.target, self.random_state = fraction, target, random_state

    def _check_parameters(self) -> None:
        check_integer(self.target, "target", at_least=0)

    def _eligible(self, n: int) -> Indices:
        if self.target >= n:
            raise ValueError(f"target must be less than the number of rows, {n}; found {self.target}.")
        return np.delete(np.arange(n), self.target)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients[self.target].clone()


class _Optimized(GradientCorruption):
    """An attack that goes from the honest mean as far along a direction as its bound permits."""

    omniscient = True

    def __init__(self, fraction: float = 0.2, direction: str = "std", random_state: Any = None) -> None:
        self.fraction, self.direction, self.random_state = fraction, direction, random_state

    def _check_parameters(self) -> None:
        check_choice(self.direction, "direction", DIRECTIONS)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        mean = mean_of_rows(gradients, honest)
        direction = perturbation(gradients, honest, mean, self.direction)
        products, along, square = _geometry(gradients, honest, mean, direction)
        return mean.add_(direction, alpha=self._length(products, along, square))

    @abstractmethod
    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        """How far to go."""


class MinMax(_Optimized):
    r"""Min-max: as far from the honest mean as the distance to no honest row exceeds the largest among them.

    Shejwalkar & Houmansadr (2021): :math:`g \to \mu + \gamma p` with the largest :math:`\gamma` for which

    .. math:: \max_i \lVert \mu + \gamma p - g_i \rVert \le \max_{i, j} \lVert g_i - g_j \rVert ,

    i and j honest. Each row bounds :math:`\gamma` by a root of a quadratic; the least root is taken, with no
    bisection. The rows that the attack replaces are all equal. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    direction : {"std", "sign", "unit"}, default="std"
        The perturbation p: minus the columns' standard deviations, minus the signs of the mean, or minus the mean
        divided by its length.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import MinMax
    >>> MinMax(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        return min_max_length(products, along, square)


class MinSum(_Optimized):
    r"""Min-sum: as far from the honest mean as the sum of squared distances stays within that of an honest row.

    Shejwalkar & Houmansadr (2021): :math:`g \to \mu + \gamma p` with the largest :math:`\gamma` for which

    .. math:: \sum_i \lVert \mu + \gamma p - g_i \rVert^2 \le \max_j \sum_i \lVert g_i - g_j \rVert^2 ,

    i and j honest; a root of one quadratic. The rows that the attack replaces are all equal. Omniscient.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    direction : {"std", "sign", "unit"}, default="std"
        The perturbation p: minus the columns' standard deviations, minus the signs of the mean, or minus the mean
        divided by its length.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import MinSum
    >>> MinSum(fraction=0.4, random_state=0)(torch.tensor([[0.0], [2.0], [9.0]]))
    tensor([[0.],
            [2.],
            [0.]])
    """

    def _length(self, products: torch.Tensor, along: torch.Tensor, square: float) -> float:
        return min_sum_length(products, along, square)


class ConstantRows(GradientCorruption):
    r"""Fixed huge block: corrupt rows hold :math:`\pm v` on the same columns at every step, and are honest elsewhere.

    Written against block methods: the columns have by far the largest norms, so that a selection by plain norms
    takes these and no others. They are the first :math:`k = \max(1, \lceil s d \rceil)` columns, with alternating
    signs.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    value : float, default=1e6
        Size v of the entries, positive.
    share : float, default=0.1
        Share s of the columns, in (0, 1]; with 1 the rows are constant but for signs.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import ConstantRows
    >>> ConstantRows(fraction=0.4, value=1e3, share=0.5, random_state=0)(torch.zeros(3, 4))
    tensor([[    0.,     0.,     0.,     0.],
            [    0.,     0.,     0.,     0.],
            [ 1000., -1000.,     0.,     0.]])
    """

    def __init__(self, fraction: float = 0.2, value: float = 1e6, share: float = 0.1, random_state: Any = None) -> None:
        self.fraction, self.value, self.share, self.random_state = fraction, value, share, random_state

    def _check_parameters(self) -> None:
        check_number(self.value, "value")
        check_number(self.share, "share", at_most=1.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return _park(gradients[corrupt], _block_size(self.share, gradients.shape[1]), self.value)


class DecoyBlock(GradientCorruption):
    r"""Split adversary: decoys own the block, the others are honest on it and turn around everywhere else.

    Written against block methods that carry weights from the block over to the other columns. Of c corrupt rows,
    :math:`\lceil c / 2 \rceil` hold :math:`\pm v` on the first :math:`k = \max(1, \lceil s d \rceil)` columns, with
    alternating signs; the others hold :math:`\lambda g` on all columns but those. The rest of each row is honest.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    value : float, default=1e9
        Size v of the decoys' entries, positive.
    scale : float, default=-1000.0
        Factor λ, finite.
    share : float, default=0.1
        Share s of the columns that decoys hold, in (0, 1].
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import DecoyBlock
    >>> DecoyBlock(fraction=0.4, value=1e3, share=0.5, random_state=0)(torch.ones(5, 4))
    tensor([[ 1000., -1000.,     1.,     1.],
            [    1.,     1.,     1.,     1.],
            [    1.,     1., -1000., -1000.],
            [    1.,     1.,     1.,     1.],
            [    1.,     1.,     1.,     1.]])
    """

    def __init__(
        self,
        fraction: float = 0.2,
        value: float = 1e9,
        scale: float = -1000.0,
        share: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.fraction, self.value, self.scale, self.share = fraction, value, scale, share
        self.random_state = random_state

    def _check_parameters(self) -> None:
        check_number(self.value, "value")
        check_number(self.scale, "scale", above=-math.inf)
        check_number(self.share, "share", at_most=1.0)

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        rows, k = gradients[corrupt], _block_size(self.share, gradients.shape[1])
        n_decoys = -(-len(rows) // 2)
        _park(rows[:n_decoys], k, self.value)
        rows[n_decoys:, k:].mul_(self.scale)
        return rows


class NonFinite(GradientCorruption):
    r"""Corrupt rows hold nothing but NaN or inf, as after an overflow or a broken transfer.

    Parameters
    ----------
    fraction : float, default=0.2
        Share ψ of the rows to corrupt, in [0, 1]; from 0.5 on there is a warning.
    value : {"nan", "inf"}, default="nan"
        What they hold.
    random_state : int, RandomState, Generator or None, default=None
        Source of the rows, if a call isn't given another. None: another one each time, never the global one.

    Examples
    --------
    >>> import torch
    >>> from skbgmd.corruption import NonFinite
    >>> NonFinite(fraction=0.4, random_state=0)(torch.zeros(3, 2))
    tensor([[0., 0.],
            [0., 0.],
            [nan, nan]])
    """

    def __init__(self, fraction: float = 0.2, value: str = "nan", random_state: Any = None) -> None:
        self.fraction, self.value, self.random_state = fraction, value, random_state

    def _check_parameters(self) -> None:
        check_choice(self.value, "value", tuple(NON_FINITE))

    def _replace(
        self, gradients: torch.Tensor, corrupt: torch.Tensor, honest: torch.Tensor, rng: np.random.RandomState
    ) -> torch.Tensor:
        return gradients.new_full((gradients.shape[1],), NON_FINITE[self.value])


def mean_of_rows(gradients: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Mean of some rows, (d,); they aren't copied."""
    mean = torch.zeros_like(gradients[0])
    for row in index.tolist():
        mean.add_(gradients[row], alpha=1.0 / len(index))
    return mean


def std_of_rows(gradients: torch.Tensor, index: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the columns over some rows about their mean, divided by their number, (d,)."""
    # Reducing a gathered copy along its rows is several times slower than passing over the rows one by one.
    variance, difference = torch.zeros_like(mean), torch.empty_like(mean)
    for row in index.tolist():
        torch.sub(gradients[row], mean, out=difference)
        variance.addcmul_(difference, difference, value=1.0 / len(index))
    return variance.sqrt_()


def perturbation(gradients: torch.Tensor, honest: torch.Tensor, mean: torch.Tensor, direction: str) -> torch.Tensor:
    """Direction of a min-max or min-sum attack, (d,): one of ``DIRECTIONS``, each with its sign turned around."""
    if direction == "std":
        return std_of_rows(gradients, honest, mean).neg_()
    if direction == "sign":
        return mean.sign().neg_()
    length = float(torch.linalg.vector_norm(mean))
    return mean / -length if length > 0.0 else torch.zeros_like(mean)


def _geometry(
    gradients: torch.Tensor, honest: torch.Tensor, mean: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Inner products of the honest rows about their mean, (h, h), those with the direction, (h,), and its square.

    In double precision, a chunk of columns at a time: a distance of rows that are close together is the difference
    of large numbers.
    """
    h = len(honest)
    products = torch.zeros((h, h), dtype=torch.float64, device=gradients.device)
    along = torch.zeros(h, dtype=torch.float64, device=gradients.device)
    square = 0.0
    for start in range(0, gradients.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        centred = gradients[:, part].index_select(0, honest).double().sub_(mean[part])
        p = direction[part].double()
        products.addmm_(centred, centred.T)
        along.addmv_(centred, p)
        square += float(p @ p)
    return products, along, square


def min_max_length(products: torch.Tensor, along: torch.Tensor, square: float) -> float:
    r"""The largest γ of a min-max attack.

    With :math:`\delta_i = g_i - \mu` and D the largest distance among the rows, row i asks for
    :math:`\gamma^2 \lVert p \rVert^2 - 2 \gamma \langle p, \delta_i \rangle + \lVert \delta_i \rVert^2 \le D^2`.
    The mean is within D of every row, so that zero is a solution of each, and the least of the larger roots is one of
    all.

    Parameters
    ----------
    products : tensor of shape (h, h), float64
        Inner products of the :math:`\delta_i`.
    along : tensor of shape (h,), float64
        Their inner products with p.
    square : float
        :math:`\lVert p \rVert^2`. If it is zero there is nowhere to go, and the answer is zero.
    """
    squares = products.diagonal()
    slack = (squares[:, None] + squares - 2.0 * products).max() - squares
    return float(_larger_root(square, along, slack).min()) if square > 0.0 else 0.0


def min_sum_length(products: torch.Tensor, along: torch.Tensor, square: float) -> float:
    r"""The largest γ of a min-sum attack.

    The sum of the h quadratics of a min-max attack,
    :math:`h \gamma^2 \lVert p \rVert^2 - 2 \gamma \sum_i \langle p, \delta_i \rangle + \sum_i \lVert \delta_i
    \rVert^2 \le \max_j \sum_i \lVert \delta_i - \delta_j \rVert^2`.

    Parameters
    ----------
    products, along, square
        As for :func:`min_max_length`.
    """
    squares, h = products.diagonal(), len(along)
    largest = (squares.sum() + h * squares - 2.0 * products.sum(dim=1)).max()
    return float(_larger_root(h * square, along.sum(), largest - squares.sum())) if square > 0.0 else 0.0


def _larger_root(a: float, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Larger root of a x² - 2 b x - c with a > 0 and, but for rounding, c >= 0."""
    c = c.clamp(min=0.0)
    root = (b * b + a * c).sqrt()
    # Of two forms, the one in which nothing cancels.
    return torch.where(b > 0.0, (b + root) / a, c / (root - b).where((root - b) > 0.0, torch.ones_like(root)))


def _block_size(share: float, d: int) -> int:
    return max(1, math.ceil(share * d - 1e-9))


def _park(rows: torch.Tensor, k: int, value: float) -> torch.Tensor:
    """Overwrite the first k columns by ± value."""
    rows[:, 0:k:2] = value
    rows[:, 1:k:2] = -value
    return rows


#: Attacks on gradients by name.
GRADIENT_CORRUPTIONS: dict[str, type[GradientCorruption]] = {
    "bit_flip": BitFlip,
    "additive_noise": AdditiveNoise,
    "sign_flip": SignFlip,
    "a_little_is_enough": ALittleIsEnough,
    "inner_product": InnerProduct,
    "mimic": Mimic,
    "min_max": MinMax,
    "min_sum": MinSum,
    "constant_rows": ConstantRows,
    "decoy_block": DecoyBlock,
    "non_finite": NonFinite,
}


def get_gradient_corruption(corruption: str | GradientCorruption) -> GradientCorruption:
    """Look up an attack on gradients.

    Parameters
    ----------
    corruption : str or GradientCorruption
        A key of :data:`GRADIENT_CORRUPTIONS`, for that attack with its default parameters; or an attack, which is
        returned as it is.

    Returns
    -------
    GradientCorruption

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> from skbgmd.corruption import get_gradient_corruption
    >>> get_gradient_corruption("min_max")
    MinMax()
    """
    if isinstance(corruption, GradientCorruption):
        return corruption
    return GRADIENT_CORRUPTIONS[check_choice(corruption, "gradient_corruption", tuple(GRADIENT_CORRUPTIONS))]()
