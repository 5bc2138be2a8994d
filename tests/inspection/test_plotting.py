"""All displays: room for texts in any size and style, what they leave alone, and what they do without matplotlib."""

from __future__ import annotations

import pickle
import sys
from itertools import combinations, pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from skbgmd import BlockGMDClassifier
from skbgmd.inspection import (
    RobustnessCurveDisplay,
    SampleTrustDisplay,
    StrengthDisplay,
    SuspectGridDisplay,
    TrainingHistoryDisplay,
)
from skbgmd.inspection._plotting import COLORS, add_legend, make_room, next_style, panels_to_draw_on
from skbgmd.training._strength.evidence import Evidence

RNG = np.random.default_rng(0)
SCORES = np.linspace(0.97, 0.4, 5)[:, None] + 0.05 * RNG.normal(size=(5, 5))
DIVERGED = np.where(SCORES < 0.6, np.nan, SCORES)


def curves(ax: Any = None) -> Any:
    display = None
    for name, scores in (("BlockGMDClassifier", SCORES[:1]), ("MLPClassifier", DIVERGED), ("Pipeline", SCORES)):
        scores = np.broadcast_to(scores, (5, 5))
        options = {"score_name": "Accuracy", "corruption_name": "Training samples with corrupt features", "name": name}
        curve = RobustnessCurveDisplay(
            fractions=np.linspace(0.0, 0.4, 5), train_scores=scores, test_scores=scores, **options
        )
        display = curve.plot(ax if display is None else display.ax_)
    return display


def trust(ax: Any = None) -> Any:
    likelihood = np.concatenate([RNG.beta(1, 9, 60), RNG.beta(9, 1, 540)])
    loss = np.exp(-9.0 * likelihood)
    known = np.arange(600) < 60
    return SampleTrustDisplay(1.3 * likelihood, loss, known, likelihood=likelihood, threshold=0.4).plot(ax)


def strength(ax: Any = None) -> Any:
    evidence = {"mild": Evidence(0.7, 0.0, 0.0), "firm": Evidence(0.7, 0.0, 0.03), "strict": Evidence(0.8, 0.1, 0.02)}
    name = "balanced accuracy, percentage points"
    return StrengthDisplay(evidence, "strict", score_name=name, scale=100.0).plot(ax)


def grid(ax: Any = None) -> Any:
    given = np.array(["versicolor", "virginica"] * 6)
    return SuspectGridDisplay(
        RNG.uniform(size=(12, 8, 8)), np.arange(12) + 1000, given, given[::-1], RNG.uniform(size=12)
    ).plot(ax)


def history(ax: Any = None) -> Any:
    epochs = np.arange(1, 41)
    display = None
    for name, loss in (("plain", 2.0 / epochs), ("robust", 3.0 - 2.0 / epochs)):
        curves = {"train_loss": loss, "valid_loss": 1.1 * loss, "lower_half_weight": 0.5 / epochs}
        drawn = TrainingHistoryDisplay(**curves, aggregation_share=np.full(40, 0.3), name=name)
        display = drawn.plot(ax if display is None else display.axes_)
    return display


DISPLAYS = (curves, trust, strength, grid, history)


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    plt.close("all")


def axes_of(display: Any) -> list[Any]:
    return list(np.ravel(getattr(display, "axes_", getattr(display, "ax_", None))))


def texts_of(ax: Any) -> list[Any]:
    """Texts that can be seen, where a legend counts as one."""
    ticks = []
    for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
        ticks += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high] if ax.axison else []
    labels = [ax.xaxis.label, ax.yaxis.label] if ax.axison else []
    found = [text for text in (ax.title, *labels, *ticks, *ax.texts) if text.get_text().strip()]
    return found + ([ax.get_legend()] if ax.get_legend() else [])


def overlapping(display: Any) -> list[tuple[str, str]]:
    boxes = [(text, text.get_window_extent()) for ax in axes_of(display) for text in texts_of(ax)]
    names = [text.get_text() if hasattr(text, "get_text") else "legend" for text, _ in boxes]
    pairs = combinations(range(len(boxes)), 2)
    # Half a point is no overlap to the eye.
    return [(names[i], names[j]) for i, j in pairs if boxes[i][1].padded(-0.5).overlaps(boxes[j][1].padded(-0.5))]


def covered(ax: Any) -> int:
    """Points of curves, bands and marks below the legend."""
    if ax.get_legend() is None:
        return 0
    box = ax.get_legend().get_window_extent()
    lines = [line for line in ax.lines if line.get_linestyle() != "--" or line.get_marker() != "None"]
    paths = [(line.get_path(), line.get_transform()) for line in lines if len(line.get_xdata())]
    paths += [(path, band.get_transform()) for band in ax.collections for path in band.get_paths()]
    points = [transform.transform(path.interpolated(10).vertices) for path, transform in paths]
    bars = sum(box.overlaps(bar.get_window_extent()) for bar in ax.patches if bar.get_height())
    return bars + sum(box.count_contains(each[np.isfinite(each).all(axis=1)]) for each in points)


@pytest.mark.parametrize("given", [None, "one", "with layout"])
# Styles of matplotlib's that differ in colors alone move no text: one for each size.
@pytest.mark.parametrize(("style", "size"), [("default", (5.0, 3.0)), ("dark_background", (10.0, 6.0))], ids=str)
@pytest.mark.parametrize("draw", DISPLAYS)
def test_texts_do_not_overlap_and_legends_cover_no_data(draw: Any, style: str, size: Any, given: str | None) -> None:
    with plt.style.context([style, {"figure.figsize": size}]):
        layout = "constrained" if given == "with layout" else None
        ax = plt.figure(layout=layout).add_subplot() if given else None
        display = draw(ax)
        display.figure_.set_size_inches(size)
        display.figure_.canvas.draw()
    assert overlapping(display) == []
    assert sum(map(covered, axes_of(display))) == 0
    if given != "one":
        # Where there is no layout engine the figure's owner sees to its edges.
        whole = display.figure_.bbox.padded(1.0)
        boxes = [text.get_window_extent() for ax in axes_of(display) for text in texts_of(ax)]
        assert all(box.x0 >= whole.x0 and box.x1 <= whole.x1 for box in boxes)
        assert all(box.y0 >= whole.y0 and box.y1 <= whole.y1 for box in boxes)


@pytest.mark.parametrize("draw", DISPLAYS)
def test_nothing_but_the_axes_is_touched(draw: Any) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    right.plot([0.0, 1.0])
    before, frames = dict(mpl.rcParams), right.get_position().frozen()
    numbers = plt.get_fignums()
    display = draw(left)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == numbers
    assert display.figure_ is figure
    assert figure.legends == figure.texts == []
    assert (len(right.lines), right.get_title()) == (1, "")
    np.testing.assert_array_equal(right.get_position(), frames)


@pytest.mark.parametrize("draw", DISPLAYS)
def test_displays_are_pickled_with_their_pictures(draw: Any) -> None:
    display = draw()
    twin = pickle.loads(pickle.dumps(display))
    for ax, other in zip(axes_of(display), axes_of(twin), strict=True):
        assert [text.get_text() for text in ax.texts] == [text.get_text() for text in other.texts]
        assert (ax.get_xlabel(), ax.get_ylabel(), len(ax.lines)) == (
            other.get_xlabel(),
            other.get_ylabel(),
            len(other.lines),
        )
    twin.figure_.canvas.draw()


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_colors_can_be_read_on_white_and_on_black() -> None:
    for color in COLORS:
        # What WCAG 2 asks of graphics.
        assert min(1.05 / (luminance(color) + 0.05), (luminance(color) + 0.05) / 0.05) >= 3.0


def test_curves_are_told_apart_without_color() -> None:
    ax = plt.figure().add_subplot()
    looks = []
    for _ in range(15):
        style = next_style(ax)
        looks.append((style["marker"], style["linestyle"]))
        ax.plot([0.0, 1.0], **style)
    assert len(set(looks)) == 15
    assert all(one[0] != other[0] and one[1] != other[1] for one, other in pairwise(looks))


def test_panels() -> None:
    axes = plt.figure().subplots(2, 2)
    np.testing.assert_array_equal(panels_to_draw_on(axes, 4, "here"), axes)
    within = panels_to_draw_on(axes[0, 0], 3, "here")
    assert within.shape == (1, 3)
    with pytest.raises(ValueError, match="ax must be free to hold panels; found one that holds others"):
        panels_to_draw_on(axes[0, 0], 3, "here")
    for wrong in (axes, axes[0], [1, 2, 3], "axes", 3):
        with pytest.raises(ValueError, match="ax must be one matplotlib Axes, 3 of them, or None; found"):
            panels_to_draw_on(wrong, 3, "here")
    free = plt.figure().add_axes((0.1, 0.2, 0.7, 0.6))
    columns = panels_to_draw_on(free, 2, "here").ravel()
    edges = [columns[0].get_position().x0, columns[1].get_position().x1, columns[0].get_position().y0]
    np.testing.assert_allclose(edges, [0.1, 0.8, 0.2])


def test_room_is_left_for_a_legend() -> None:
    ax = plt.figure().add_subplot()
    ax.plot([1.0, 3.0], label="curve")
    share = add_legend(ax)
    assert 0.0 < share < 0.3
    make_room(ax, above=share, below=0.2)
    low, high = ax.get_ylim()
    np.testing.assert_allclose([(1.0 - low) / (high - low), (high - 3.0) / (high - low)], [0.25, share + 0.05])
    ax.cla()
    make_room(ax)
    assert np.isfinite(ax.get_ylim()).all()


@pytest.mark.parametrize("draw", DISPLAYS)
def test_without_matplotlib_the_error_says_so(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"Display.plot requires matplotlib. You can install"):
        draw()


@pytest.mark.parametrize(
    ("kind", "arguments", "options"),
    [
        (RobustnessCurveDisplay, ([[0.0]], [0]), {"corruption": "sign_flip"}),
        (SampleTrustDisplay, ([[0.0]], [0]), {}),
        (SuspectGridDisplay, ([[0.0]], [0]), {}),
        (StrengthDisplay, (), {}),
        (TrainingHistoryDisplay, (), {}),
    ],
)
def test_without_matplotlib_nothing_is_computed(
    kind: Any, arguments: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=rf"{kind.__name__}.from_estimator requires matplotlib"):
        kind.from_estimator(BlockGMDClassifier(), *arguments, **options)
