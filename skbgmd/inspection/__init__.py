"""How a score falls as more of the training rows are corrupt: a curve, and a picture of it."""

from skbgmd.inspection.curve import robustness_curve
from skbgmd.inspection.display import RobustnessCurveDisplay

__all__ = ["RobustnessCurveDisplay", "robustness_curve"]
