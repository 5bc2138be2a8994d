"""Byzantine attacks on gradients: corrupt rows of a matrix with one row for each worker or group of samples."""

from __future__ import annotations

from skbgmd._utils.checks import check_choice
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.gradients.base import GradientCorruption
from skbgmd.corruption.gradients.blocks import ConstantRows, DecoyBlock
from skbgmd.corruption.gradients.non_omniscient import AdditiveNoise, BitFlip, NonFinite, SignFlip
from skbgmd.corruption.gradients.omniscient import ALittleIsEnough, InnerProduct, Mimic, MinMax, MinSum

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


__all__ = [
    "GRADIENT_CORRUPTIONS",
    "ALittleIsEnough",
    "AdditiveNoise",
    "AttackContext",
    "BitFlip",
    "ConstantRows",
    "DecoyBlock",
    "GradientCorruption",
    "InnerProduct",
    "Mimic",
    "MinMax",
    "MinSum",
    "NonFinite",
    "SignFlip",
    "get_gradient_corruption",
]
