"""Numbers that make up a share of others."""

from __future__ import annotations

from skbgmd._utils import limits


def share_of(fraction: float, n: int) -> float:
    """Multiply a share by a number: whole where it is so but for rounding, be the share in single precision.

    Examples
    --------
    >>> import numpy as np
    >>> 0.29 * 100, float(np.float32(0.1)) * 150
    (28.999999999999996, 15.000000223517418)
    >>> share_of(0.29, 100), share_of(np.float32(0.1), 150), share_of(0.25, 150)
    (29.0, 15.0, 37.5)
    """
    exact = float(fraction) * n
    whole = float(round(exact))
    return whole if abs(exact - whole) <= limits.WHOLE + limits.SINGLE_ROUNDING * whole else exact
