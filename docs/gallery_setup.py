"""Order and looks of the gallery's examples."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

#: The examples in the order in which a reader meets them, by name.
ORDER = (
    "robust_mean",
    "wrong_labels",
    "sparse_text",
    "broken_features",
    "regression_outliers",
    "imbalanced",
    "strength",
    "grid_search",
    "robustness_curves",
    "own_network",
    "skorch_net",
    "training_loop",
    "own_rule",
    "ddp",
    "flower",
    "colluding_workers",
    "state_dicts",
)

#: Okabe and Ito's palette, which people with any color vision can tell apart; orange-red is for what is corrupt.
COLORS = ("#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#d55e00", "#000000")


class ReadingOrder:
    """Sort key of the examples in a folder; one that isn't listed is an error."""

    def __init__(self, src_dir):
        pass

    def __call__(self, filename):
        return ORDER.index(Path(filename).stem.removeprefix("plot_"))


def reset(gallery_conf, fname):
    """Begin each example with the same pictures, colors that all can tell apart, and one thread."""
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=COLORS),
            "figure.constrained_layout.use": True,
            "figure.figsize": (7.0, 3.2),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "legend.frameon": False,
        }
    )
    torch.set_num_threads(1)
