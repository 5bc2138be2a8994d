"""Gradients to attack, and what an attack makes of them."""

from __future__ import annotations

import numpy as np
import torch

from skbgmd.corruption import GRADIENT_CORRUPTIONS

#: Attacks that act on gradients, rather than on targets.
NAMES = [name for name, kind in GRADIENT_CORRUPTIONS.items() if not kind.acts_on_targets]
#: Attacks whose noise depends on the kind of device, and on the dtype.
RANDOM = ("additive_noise", "framing", "simplex")


def median(rows):
    """A rule for attacks that search, in a call that has none."""
    return rows.median(dim=0).values


def make(name, **params):
    """An attack by its name, with a rule to attack if it wants one."""
    kind = GRADIENT_CORRUPTIONS[name]
    if "aggregator" in kind().get_params():
        params = {"aggregator": median, **params}
    return kind(**params)


def matrix(b=12, d=40, seed=0, dtype=torch.float64):
    """Rows around a direction, as gradients are."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=d) + 0.5 * rng.normal(size=(b, d))).to(dtype)


def same(a, b):
    """Equal bit by bit, NaN included."""
    return torch.equal(torch.nan_to_num(a, nan=-77.0), torch.nan_to_num(b, nan=-77.0))


def split(attack, gradients, seed=0):
    """The attacked matrix, its corrupt rows and the others."""
    attacked = gradients.clone()
    corrupt = attack.apply_(attacked, random_state=seed)
    honest = torch.tensor([i for i in range(len(gradients)) if i not in corrupt.tolist()])
    return attacked, corrupt, honest


def counted(aggregate):
    """A function, and the list of what it was called with."""
    seen = []

    def function(rows):
        seen.append(rows.clone())
        return aggregate(rows)

    return function, seen
