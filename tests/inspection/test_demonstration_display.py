"""The demonstration's table and picture."""

from __future__ import annotations

import math

from skbgmd.inspection.demonstration import METHODS, Outcome, cases
from skbgmd.inspection.demonstration_display import draw, table

OUTCOMES = [
    Outcome(kind, fraction, method, math.nan if (method, fraction) == ("SGD", 0.4) else 0.1 * place, 2.0)
    for place, (kind, fraction) in enumerate(cases())
    for method in METHODS
]


def test_the_table():
    lines = table(OUTCOMES).splitlines()
    assert len(lines) == len(cases()) + 2
    assert all(method in lines[0] for method in METHODS)
    assert lines[1].split() == ["nothing", *["0.0"] * len(METHODS)]
    assert lines[3].split("diverged")[0].strip() == "40 % of the gradients"
    assert lines[-1].count("2.0 s") == len(METHODS)
    assert len({len(line) for line in lines}) == 1


def test_the_picture_has_a_panel_for_each_kind():
    figure = draw(OUTCOMES)
    assert [panel.get_title() for panel in figure.axes] == ["corrupt gradients", "corrupt features", "corrupt labels"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*METHODS, "diverged"]
