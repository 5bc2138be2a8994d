"""Byzantine attacks on gradients: corrupt rows of a matrix with one row for each worker or group of samples."""

from __future__ import annotations

from skbgmd._utils.checks import check_choice
from skbgmd._utils.typing import AttackContext
from skbgmd.corruption.gradients.a_little_is_enough import ALittleIsEnough
from skbgmd.corruption.gradients.additive_noise import AdditiveNoise
from skbgmd.corruption.gradients.base import GradientCorruption
from skbgmd.corruption.gradients.bit_flip import BitFlip
from skbgmd.corruption.gradients.constant_rows import ConstantRows
from skbgmd.corruption.gradients.constant_vote import ConstantVote
from skbgmd.corruption.gradients.decoy_block import DecoyBlock
from skbgmd.corruption.gradients.framing import Framing
from skbgmd.corruption.gradients.inner_product import InnerProduct
from skbgmd.corruption.gradients.label_flip import LabelFlip
from skbgmd.corruption.gradients.memory_filler import MemoryFiller
from skbgmd.corruption.gradients.mimic import Mimic
from skbgmd.corruption.gradients.min_max import MinMax
from skbgmd.corruption.gradients.min_sum import MinSum
from skbgmd.corruption.gradients.non_finite import NonFinite
from skbgmd.corruption.gradients.scale_rider import ScaleRider
from skbgmd.corruption.gradients.searched_a_little_is_enough import SearchedALittleIsEnough
from skbgmd.corruption.gradients.searched_inner_product import SearchedInnerProduct
from skbgmd.corruption.gradients.shadowing import Shadowing
from skbgmd.corruption.gradients.sign_flip import SignFlip
from skbgmd.corruption.gradients.simplex import Simplex
from skbgmd.corruption.gradients.sleeper import Sleeper
from skbgmd.corruption.gradients.squatter import Squatter

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
    "searched_a_little_is_enough": SearchedALittleIsEnough,
    "searched_inner_product": SearchedInnerProduct,
    "simplex": Simplex,
    "shadowing": Shadowing,
    "scale_rider": ScaleRider,
    "squatter": Squatter,
    "constant_vote": ConstantVote,
    "framing": Framing,
    "sleeper": Sleeper,
    "memory_filler": MemoryFiller,
    "label_flip": LabelFlip,
}


def get_gradient_corruption(corruption: str | GradientCorruption) -> GradientCorruption:
    """Look up an attack on gradients by its name.

    Parameters
    ----------
    corruption : str or GradientCorruption
        A key of :data:`GRADIENT_CORRUPTIONS`, for that attack with its default parameters. An attack is returned as it
        is.

    Returns
    -------
    GradientCorruption

    Raises
    ------
    ValueError
        If the name is unknown.

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
    "ConstantVote",
    "DecoyBlock",
    "Framing",
    "GradientCorruption",
    "InnerProduct",
    "LabelFlip",
    "MemoryFiller",
    "Mimic",
    "MinMax",
    "MinSum",
    "NonFinite",
    "ScaleRider",
    "SearchedALittleIsEnough",
    "SearchedInnerProduct",
    "Shadowing",
    "SignFlip",
    "Simplex",
    "Sleeper",
    "Squatter",
    "get_gradient_corruption",
]
