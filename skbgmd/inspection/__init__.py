"""Inspection: robustness curves, suspicious training samples, the choice of a strength, and pictures of them."""

from skbgmd.inspection.curve import robustness_curve
from skbgmd.inspection.display import RobustnessCurveDisplay
from skbgmd.inspection.losses import label_losses, sample_losses
from skbgmd.inspection.sample_trust_display import SampleTrustDisplay
from skbgmd.inspection.strength_display import StrengthDisplay
from skbgmd.inspection.suspect_grid_display import SuspectGridDisplay
from skbgmd.inspection.suspects import SuspectEstimate, estimate_n_suspects, find_suspects
from skbgmd.inspection.training_history_display import TrainingHistoryDisplay

__all__ = [
    "RobustnessCurveDisplay",
    "SampleTrustDisplay",
    "StrengthDisplay",
    "SuspectEstimate",
    "SuspectGridDisplay",
    "TrainingHistoryDisplay",
    "estimate_n_suspects",
    "find_suspects",
    "label_losses",
    "robustness_curve",
    "sample_losses",
]
