"""The demonstration's table and picture."""

from __future__ import annotations

import math

import numpy as np
import pytest

from skbgmd.inspection.demonstration import CLEAN, KINDS, METHODS, Outcome, cases
from skbgmd.inspection.demonstration_display import LOOKS, TITLES, accuracies, draw, legend, mean_and_deviation, table


def outcomes(n_seeds=2, lost=1):
    """The first so many seeds of plain training are lost where 40 % are corrupt."""
    return [
        Outcome(
            kind,
            fraction,
            method,
            seed,
            math.nan if (method, fraction) == ("plain training", 0.4) and seed < lost else 0.1 * place + 0.01 * seed,
            2.0,
        )
        for place, (kind, fraction) in enumerate(cases())
        for method in METHODS
        for seed in range(n_seeds)
    ]


def test_the_table():
    lines = table(outcomes()).splitlines()
    assert len(lines) == len(cases()) + 2
    assert all(method in lines[0] for method in METHODS)
    assert lines[1].split() == ["nothing", *["0.5", "±", "0.7"] * len(METHODS)]
    name, rest = lines[3].split("diverged")
    assert name.strip() == "40 % of the labels"
    assert rest.startswith(" (1 of 2)")
    assert lines[-1].count("2.0 s") == len(METHODS)
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 100


def test_one_seed_has_no_deviation():
    shown = table(outcomes(n_seeds=1))
    assert "±" not in shown
    assert shown.splitlines()[3].split()[5:7] == ["diverged", "20.0"]


def test_every_name_has_its_words_and_its_looks():
    assert list(LOOKS) == list(METHODS)
    assert list(TITLES) == list(KINDS)
    assert [line.split(":")[0].strip() for line in legend().splitlines()] == list(METHODS)
    assert max(map(len, legend().splitlines())) <= 120


def test_accuracies_by_seed():
    np.testing.assert_allclose(accuracies(outcomes(), "labels", 0.4, "plain training"), [math.nan, 0.21])
    np.testing.assert_allclose(accuracies(outcomes(), CLEAN, 0.0, "paper's BGMD"), [0.0, 0.01])


def test_mean_and_sample_deviation():
    assert mean_and_deviation(np.array([1.0, 2.0, 3.0])) == (2.0, 1.0)
    assert mean_and_deviation(np.array([4.0])) == (4.0, 0.0)


def words(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_the_picture_has_a_panel_for_each_kind():
    figure = draw(outcomes())
    assert [panel.get_title() for panel in figure.axes] == list(TITLES.values())
    labels = [label for label, *_ in LOOKS.values()]
    assert words(figure) == [*labels, "± standard deviation of 2 seeds", "guessing", "diverged"]
    assert [panel.get_ylim() for panel in figure.axes] == [(0, 100)] * len(KINDS)


@pytest.mark.parametrize(("lost", "said"), [(0, []), (1, ["1 of 2"]), (2, [])])
def test_what_diverged_lies_at_the_bottom(lost, said):
    figure = draw(outcomes(lost=lost))
    panel = figure.axes[0]
    crosses = [line for line in panel.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [line.get_xydata().tolist() for line in crosses] == ([[[40.0, 0.0]]] if lost else [])
    assert [text.get_text() for text in panel.texts] == said
    assert ("diverged" in words(figure)) == (lost > 0)


def test_bands_are_a_deviation_on_either_side():
    panel = draw(outcomes(lost=0)).axes[0]
    band = panel.collections[0].get_paths()[0].vertices
    at_20 = band[np.isclose(band[:, 0], 20.0), 1]
    deviation = np.std([10.0, 11.0], ddof=1)
    assert sorted({round(y, 6) for y in at_20}) == pytest.approx([10.5 - deviation, 10.5 + deviation])
    assert "seeds" not in " ".join(words(draw(outcomes(n_seeds=1))))
