"""Inspection: robustness curves, suspicious training samples, and pictures of both."""

from skbgmd.inspection.curve import robustness_curve
from skbgmd.inspection.display import RobustnessCurveDisplay
from skbgmd.inspection.suspects import SampleTrustDisplay, find_suspects, sample_losses

__all__ = [
    "RobustnessCurveDisplay",
    "SampleTrustDisplay",
    "find_suspects",
    "robustness_curve",
    "sample_losses",
]
