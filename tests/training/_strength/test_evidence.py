"""The choice of a strength by held-out samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skbgmd._utils import limits
from skbgmd.training._data.scaling import deviation_of_most
from skbgmd.training._strength.evidence import (
    Evidence,
    choose,
    error_scores,
    errors_ahead,
    evidence_for,
    hold_out,
    look_gross,
    stratified_mean,
)

ONES = np.ones(40)
STRATA = np.arange(40) % 2


def hits(*shares: float) -> dict[str, np.ndarray]:
    """Utilities by "0", "1", ...: so many of the samples, the first ones, are predicted."""
    return {str(name): (np.arange(40) < share * 40).astype(float) for name, share in enumerate(shares)}


def test_stratified_means_are_of_classes_rather_than_of_samples() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0])
    mean, error = stratified_mean(values, np.array([0, 0, 0, 1]), np.ones(4))
    assert mean == 0.5
    # A single one that came out well proves nothing.
    assert error >= 1 / 6
    assert stratified_mean(values, np.zeros(4, dtype=int), np.array([0.0, 0.0, 1.0, 3.0]))[0] == pytest.approx(0.25)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.1, 3.0)), min_size=2, max_size=30))
@settings(deadline=None)
def test_the_error_of_a_mean_is_no_less_than_the_textbooks(pairs: list[tuple[float, float]]) -> None:
    values, weight = np.array(pairs).T
    mean, error = stratified_mean(values, np.zeros(len(values), dtype=int), weight)
    share = weight / weight.sum()
    assert mean == pytest.approx(share @ values, abs=1e-12)
    assert error >= np.sqrt(share**2 @ (values - mean) ** 2) - 1e-12


def test_gains_are_paired() -> None:
    noise = np.random.default_rng(0).normal(size=40)
    found = evidence_for({"a": noise, "b": noise + 0.1}, np.zeros(40, dtype=int), ONES)["b"]
    assert found.gain == pytest.approx(0.1)
    assert found.standard_error < 0.01


#: Shares of the held-out samples that each predicts after a third of the epochs and in the end; the choice, and those
#: that are trained to the end.
RACES = {
    "far behind": ((0.8,), (0.4,), (0.3,), "mild", ()),
    "level": ((0.8, 0.8), (0.8, 0.8), (0.8, 0.8), "mild", ("mild", "firm", "strict")),
    "behind, if not far": ((0.8, 0.8), (0.75, 0.9), (0.3,), "firm", ("mild", "firm")),
    "ahead early": ((0.8, 0.8), (0.85, 0.825), (0.4,), "mild", ("mild", "firm")),
    "ahead in the end": ((0.8, 0.4), (0.8, 0.7), (0.85, 0.8), "strict", ("mild", "firm", "strict")),
    "overtaken": ((0.8, 0.4), (0.8, 0.8), (0.85, 0.7), "firm", ("mild", "firm", "strict")),
    "far behind one that isn't far ahead": ((0.8, 0.8), (0.4,), (0.85, 0.8), "mild", ("mild", "strict")),
    # Decided after a third.
    "far ahead": ((0.5,), (0.4,), (0.9,), "strict", ()),
    "far ahead of both": ((0.5,), (0.6,), (0.9,), "strict", ()),
    "far ahead, and the stronger far behind": ((0.5,), (0.9,), (0.6,), "firm", ()),
    "two far ahead": ((0.5, 0.5), (0.9, 0.8), (0.85, 0.9), "strict", ("mild", "firm", "strict")),
    # Not ahead of one that predicts nearly all: no stronger one is tried.
    "hardly wrong": ((0.95,), (0.95,), None, "mild", ()),
    "hardly wrong, behind": ((0.95,), (0.925,), None, "mild", ()),
    "hardly wrong, ahead": ((0.925, 0.925), (0.95, 0.95), (0.9,), "mild", ("mild", "firm")),
    # One that diverges is out.
    "stronger ones diverge": ((0.5,), (0.1,), (None,), "mild", ()),
    "the gentle one diverges": ((None,), (0.5, 0.5), (0.6, 0.7), "strict", ("firm", "strict")),
    "all diverge": ((None,), (None,), (None,), "mild", ()),
    "the gentle one diverges late": ((0.8, None), (0.8, 0.8), (0.85, 0.8), "firm", ("mild", "firm", "strict")),
    "the others diverge late": ((0.8, 0.8), (0.8, None), (0.85, None), "mild", ("mild", "firm", "strict")),
    "all diverge late": ((0.8, None), (0.1,), (0.85, None), "mild", ("mild", "strict")),
}


@pytest.mark.parametrize("name", RACES)
def test_another_must_be_ahead(name: str) -> None:
    *given, chosen, to_the_end = RACES[name]
    shares = {key: list(each) for key, each in zip(("mild", "firm", "strict"), given, strict=True) if each is not None}
    tried = {key: each[0] for key, each in shares.items()}
    asked: list[tuple[str, int]] = []

    def predict(name: str, more: int) -> Any:
        asked.append((name, more))
        return shares[name].pop(0)

    def utilities(predicted: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
        return [{name: hits(share)["0"] for name, share in predicted.items()}]

    found, evidence = choose(("mild", "firm", "strict"), predict, utilities, STRATA, ONES, epochs=100)
    assert found == chosen
    assert asked == [(each, 34) for each in tried] + [(each, 66) for each in to_the_end]
    assert set(evidence) == {each for each in tried if tried[each] is not None}


def test_proven_wrong_labels_are_worth_the_time() -> None:
    asked: list[tuple[str, int]] = []

    def predict(name: str, more: int) -> float:
        asked.append((name, more))
        return 0.95

    def utilities(predicted: Mapping[str, float]) -> list[dict[str, np.ndarray]]:
        return [{name: hits(share)["0"] for name, share in predicted.items()}]

    def proven(_: object) -> float:
        return limits.CLEAR_GAIN_OF_WRONG

    choose(("mild", "firm"), predict, utilities, STRATA, ONES, epochs=100, ahead=proven)
    assert asked == [("mild", 34), ("firm", 34), ("mild", 66), ("firm", 66)]


def test_without_proof_being_far_ahead_early_decides_nothing() -> None:
    # A subgroup that "mild" has yet to learn.
    shares = {"mild": [0.5, 0.9], "firm": [0.8, 0.8]}

    def predict(name: str, more: int) -> float:
        return shares[name].pop(0)

    def utilities(predicted: Mapping[str, float]) -> list[dict[str, np.ndarray]]:
        return [{name: hits(share)["0"] for name, share in predicted.items()}]

    name, _ = choose(("mild", "firm"), predict, utilities, STRATA, ONES, epochs=100, proof=limits.CLEAR_GAIN_OF_WRONG)
    assert name == "mild"
    assert shares == {"mild": [], "firm": []}


#: Of two strengths for numbers: standard errors that are asked for after a third of the epochs and in the end, the
#: gains, the choice, and the epochs that both are trained for.
ASKED_OF_NUMBERS = {
    "nothing is enough": ((np.inf, 1.0), (5.0, 5.0), "mild", (34, 0)),
    "not ahead without gross targets": ((2.0, 1.0), (0.0, 5.0), "mild", (34, 34)),
    "not ahead of a tail": ((5.0, 1.0), (-0.1, 5.0), "mild", (34, 34)),
    "not ahead of gross targets": ((1.0, 1.0), (-0.1, 5.0), "firm", (100, 100)),
    "ahead without gross targets": ((2.0, 2.0), (0.1, 5.0), "firm", (100, 100)),
    "ahead of a tail, but not as far as is asked": ((5.0, 5.0), (0.6, 0.6), "mild", (100, 100)),
    "far ahead of gross targets": ((1.0, 1.0), (0.6, 0.0), "firm", (34, 34)),
    "far ahead without": ((2.0, 2.0), (0.6, 0.0), "mild", (100, 100)),
}


@pytest.mark.parametrize("name", ASKED_OF_NUMBERS)
def test_what_is_needless_is_not_trained_on(name: str) -> None:
    errors, gains, chosen, epochs = ASKED_OF_NUMBERS[name]
    noise = np.random.default_rng(0).normal(size=40)
    noise -= noise.mean()
    trained = dict.fromkeys(("mild", "firm"), 0)

    def predict(name: str, more: int) -> int:
        trained[name] += more
        return trained[name]

    def utilities(predicted: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        gain = gains[int(predicted["mild"] == 100)]
        every = {"mild": np.full(40, -1.0), "firm": gain - 1.0 + noise}
        return [{name: every[name] for name in predicted}]

    def ahead(predicted: Mapping[str, int]) -> float:
        return errors[int(predicted["mild"] == 100)]

    strata = np.zeros(40, dtype=int)
    found, evidence = choose(("mild", "firm"), predict, utilities, strata, ONES, epochs=100, ahead=ahead)
    assert found == chosen
    assert tuple(trained.values()) == epochs
    assert list(evidence) == [each for each in trained if trained[each]]


def test_an_objection_after_a_third_is_asked_for_again() -> None:
    trained = dict.fromkeys(("mild", "firm"), 0)
    seen: list[int] = []

    def predict(name: str, more: int) -> int:
        trained[name] += more
        return trained[name]

    def utilities(predicted: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        return [{"mild": hits(0.4)["0"], "firm": hits(0.8)["0"]}]

    for least, chosen, asked in ((34, "firm", [34]), (100, "firm", [34, 100]), (101, "mild", [34, 100])):
        trained |= {"mild": 0, "firm": 0}
        seen.clear()

        def objects(predicted: int, least: int = least) -> bool:
            seen.append(predicted)
            return predicted < least

        name, evidence = choose(("mild", "firm"), predict, utilities, STRATA, ONES, epochs=100, objects=objects)
        assert (name, seen) == (chosen, asked)
        assert (evidence["firm"].errors_ahead == np.inf) == (chosen == "mild")


@pytest.mark.parametrize(
    ("first", "second", "chosen", "epochs", "gain"),
    [
        # Dropped where both scores say so.
        ([0.4, None], [0.4, None], "mild", 34, -0.4),
        ([0.4, 0.8], [0.8, 0.8], "mild", 100, 0.0),
        # Taken where both do, and told by that which is less in favour.
        ([0.8, 0.9], [0.8, 0.9], "firm", 100, 0.1),
        ([0.8, 0.9], [0.8, 0.6], "mild", 100, -0.2),
        ([0.8, 0.6], [0.8, 0.9], "mild", 100, -0.2),
        ([0.4, None], [0.2, None], "mild", 34, -0.6),
        ([0.8, 0.7], [0.8, 0.6], "mild", 100, -0.2),
        ([0.8, 0.6], [0.8, 0.7], "mild", 100, -0.2),
        # And at once.
        ([1.0, None], [1.0, None], "firm", 34, 0.2),
        ([1.0, 1.0], [0.8, 0.8], "mild", 100, 0.0),
    ],
)
def test_all_scores_must_agree(first: list[Any], second: list[Any], chosen: str, epochs: int, gain: float) -> None:
    trained = dict.fromkeys(("mild", "firm"), 0)

    def predict(name: str, more: int) -> int:
        trained[name] += more
        return trained[name]

    def utilities(predicted: Mapping[str, int]) -> list[dict[str, np.ndarray]]:
        stage = int(predicted["mild"] == 100)
        every = [{"mild": hits(0.8)["0"], "firm": hits(shares[stage])["0"]} for shares in (first, second)]
        return [{name: each[name] for name in predicted} for each in every]

    name, evidence = choose(["mild", "firm"], predict, utilities, STRATA, ONES, epochs=100)
    assert name == chosen
    assert trained == {"mild": epochs, "firm": epochs}
    assert evidence["firm"].gain == pytest.approx(gain)


def test_a_share_of_each_class_is_held_out_and_none_of_a_tiny_one() -> None:
    strata = np.repeat([0, 1, 2], [80, 9, 3])
    mask = hold_out(strata, 0.25, np.random.RandomState(0))
    assert np.bincount(strata[mask], minlength=3).tolist() == [20, 2, 0]
    np.testing.assert_array_equal(mask, hold_out(strata, 0.25, np.random.RandomState(0)))


def test_copies_are_held_out_together_and_without_any_the_draw_is_the_same() -> None:
    strata = np.arange(300) % 3
    for seed in range(5):
        alone = hold_out(strata, 2 / 3, np.random.RandomState(seed))
        np.testing.assert_array_equal(alone, hold_out(strata, 2 / 3, np.random.RandomState(seed), np.arange(300)))
        # One in ten occurs a second time, one four times.
        first = np.arange(300)
        first[270:] = first[:30]
        first[[30, 60, 90, 120]] = 0
        mask = hold_out(strata, 2 / 3, np.random.RandomState(seed), first)
        np.testing.assert_array_equal(mask, mask[first])
        assert np.bincount(strata[mask]).tolist() == [66, 66, 66]


def test_what_has_more_copies_than_are_to_be_drawn_is_not_held_out() -> None:
    first = np.array([0] * 8 + [8, 9])
    for seed in range(5):
        mask = hold_out(np.zeros(10, dtype=int), 0.5, np.random.RandomState(seed), first)
        assert np.flatnonzero(mask).tolist() == [8, 9]


@pytest.mark.parametrize("one_sided", [False, True])
def test_gross_targets_do_not_decide_between_predictions_of_numbers(one_sided: bool) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 1))
    good, poor = truth + 0.1 * rng.normal(size=truth.shape), truth + 0.5 * rng.normal(size=truth.shape)
    for gross in (1e3, 1e12, 1e300):
        y = truth.copy()
        y[:60] += gross * (1.0 if one_sided else rng.choice((-1.0, 1.0), size=(60, 1)))
        absolute, squared = error_scores({"good": good - y, "poor": poor - y}, y)
        difference = absolute["good"] - absolute["poor"]
        unit = deviation_of_most(y[:, 0])
        assert difference.mean() > 0.1 / unit
        assert np.all(np.abs(difference) <= np.abs(good - poor)[:, 0] / unit + 1e-12 * gross)
        difference = squared["good"] - squared["poor"]
        np.testing.assert_array_equal(difference[:60], 0.0)
        np.testing.assert_allclose(
            difference[60:], ((poor - truth) ** 2 - (good - truth) ** 2)[60:, 0] / unit**2, atol=1e-12
        )
        for scores in (absolute, squared):
            pair = {name: scores[name] for name in ("poor", "good")}
            assert evidence_for(pair, np.zeros(200, dtype=int), np.ones(200))["good"].is_clear
        again = error_scores({"good": 1e-9 * (good - y), "poor": 1e-9 * (poor - y)}, 1e-9 * y)
        for before, scaled in zip((absolute, squared), again, strict=True):
            np.testing.assert_allclose(scaled["good"], before["good"])


def test_a_long_tail_counts() -> None:
    rng = np.random.default_rng(0)
    y = np.where(rng.random(400) < 0.7, 0.0, rng.lognormal(size=400))[:, None]
    zeros, tail = np.zeros_like(y), y + 0.05 * rng.normal(size=y.shape)
    for scores in error_scores({"zeros": zeros - y, "tail": tail - y}, y):
        assert scores["tail"].mean() > scores["zeros"].mean()
    for alike in error_scores({"exact": zeros}, np.zeros_like(y)):
        np.testing.assert_array_equal(alike["exact"], 0.0)


def test_the_few_are_not_given_up_for_the_many() -> None:
    rng = np.random.default_rng(0)
    y, is_rare = rng.normal(size=(600, 1)), np.arange(600)[:, None] % 10 == 0
    sign = rng.choice((-1.0, 1.0), size=y.shape)
    residuals = {"mild": sign * np.where(is_rare, 0.5, 0.2), "firm": sign * np.where(is_rare, 1.2, 0.1)}
    absolute, squared = (
        evidence_for(scores, np.zeros(600, dtype=int), np.ones(600))["firm"] for scores in error_scores(residuals, y)
    )
    assert absolute.is_clear
    assert squared.gain < -squared.standard_error


def test_moderate_targets_on_one_side_do_not_speak_for_those_who_follow_them() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(500, 1))
    y = truth + np.where(np.arange(500)[:, None] % 5, 0.0, 8.0)
    _, squared = error_scores({"holds": 0.5 - y + truth, "follows": 1.5 - y + truth}, y)
    assert squared["holds"].mean() > squared["follows"].mean()


#: Targets without gross ones, of a deviation of about one.
USUAL = {
    "normal": lambda rng: rng.normal(size=(400, 1)),
    "uniform": lambda rng: rng.uniform(-1.7, 1.7, size=(400, 1)),
    "Laplace": lambda rng: rng.laplace(size=(400, 1)) / 1.4,
    "Student": lambda rng: rng.standard_t(5, size=(400, 1)),
    "counts": lambda rng: rng.poisson(3.0, size=(400, 1)) / 1.7,
    "two": lambda rng: rng.normal(size=(400, 2)) * [1.0, 1e6],
}


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_a_strength_must_be_further_ahead_where_no_targets_are_gross(name: str, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    y = USUAL[name](rng)
    far, y = 20.0 * scale * y.std(axis=0), scale * y
    ones = np.ones(400)
    # Between bounds nothing is missed, whatever is predicted.
    usual = np.inf if name == "uniform" else limits.CLEAR_GAIN_WITHOUT_GROSS
    # By a network that knows nothing, or little.
    for share_known in (0.0, 0.1):
        predicted = np.median(y, axis=0) + share_known * (y - np.median(y, axis=0))
        assert errors_ahead(predicted, y, ones) == usual
        for share, sign in ((0.1, 1.0), (0.3, 1.0), (0.3, rng.choice((-1.0, 1.0), size=(400, 1)))):
            dirty = y + np.where(np.arange(400)[:, None] < 400 * share, sign * far, 0.0)
            assert errors_ahead(predicted, dirty, ones) == limits.CLEAR_GAIN
            # Those without weight don't count.
            weight = (np.arange(400) >= 400 * share).astype(float)
            assert errors_ahead(predicted, dirty, weight) == usual


@pytest.mark.parametrize("name", USUAL)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_targets_that_are_predicted_are_right(name: str, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    y = USUAL[name](rng)
    size, y = scale * y.std(axis=0), scale * y
    predicted = y + 0.3 * size * rng.normal(size=y.shape)
    assert errors_ahead(predicted, y, np.ones(400)) == np.inf
    # Not all: of these some are of other samples, or a few are far off.
    permuted = np.where(np.arange(400)[:, None] % 5 == 0, rng.permutation(y), y)
    gross = y + 6.0 * size * rng.choice((-1.0, 1.0), size=y.shape) * (np.arange(400)[:, None] % 50 == 0)
    for dirty in (permuted, gross):
        assert errors_ahead(predicted, dirty, np.ones(400)) < np.inf
    # Those without weight don't count.
    assert errors_ahead(predicted, gross, (np.arange(400) % 50 > 0).astype(float)) == np.inf


#: Targets with a tail on one side, (n,), and what is known of each.
SKEWED = {
    "lognormal": lambda rng: (z := np.exp(1.2 * rng.normal(size=600)), z),
    "products": lambda rng: (z := np.exp(rng.normal(size=600)) * np.exp(0.3 * rng.normal(size=600)), z),
    "amounts": lambda rng: ((z := np.exp(rng.normal(size=600))) * np.exp(0.5 * rng.normal(size=600)), z),
    "durations": lambda rng: (rng.exponential(z := np.exp(rng.normal(size=600))), z),
    "claims": lambda rng: ((z := np.exp(rng.normal(size=600))) * rng.gamma(2.0, 0.5, size=600), z),
    "zeros": lambda rng: (np.maximum(np.exp(1.5 * (z := rng.normal(size=600))) - 1.0, 0.0), np.exp(1.5 * z) - 1.0),
}


@pytest.mark.parametrize("name", SKEWED)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-200, -1e200])
def test_a_tail_is_not_taken_for_gross_targets(name: str, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    y, known = (scale * each[:, None] for each in SKEWED[name](rng))
    ones = np.ones(600)
    predicted = known * np.exp(0.1 * rng.normal(size=(600, 1)))
    asked = errors_ahead(predicted, y, ones)
    assert asked == np.inf if name in ("lognormal", "products", "zeros") else asked == limits.CLEAR_GAIN_OF_SKEWED
    # Of two columns, and with tails on opposite sides.
    assert errors_ahead(np.hstack([predicted, -5.0 * predicted]), np.hstack([y, -5.0 * y]), ones) == asked
    # Gross targets among them are gross, on whichever side they are.
    wrong = np.arange(600)[:, None] % 10 == 0
    for sign in (1.0, -1.0, rng.choice((-1.0, 1.0), size=(600, 1))):
        dirty = np.where(wrong, y + sign * 30.0 * abs(scale), y)
        assert errors_ahead(predicted, dirty, ones) <= limits.CLEAR_GAIN_WITHOUT_GROSS
    assert errors_ahead(predicted, dirty, 1.0 - wrong[:, 0]) == asked


def test_few_far_targets_prove_nothing() -> None:
    y = np.append(np.random.default_rng(0).uniform(-1.0, 1.0, size=300), np.full(5, 20.0))[:, None]
    assert errors_ahead(0.9 * y, y, np.ones(305)) == limits.CLEAR_GAIN_WITHOUT_GROSS
    # Nor does a network that has predicted no number.
    for nothing in (np.inf, -np.inf, np.nan):
        assert errors_ahead(np.full_like(y, nothing), y, np.ones(305)) == limits.CLEAR_GAIN
        tail = np.exp(3.0 * y[:300])
        predicted = tail.copy()
        predicted[0] = nothing
        assert errors_ahead(predicted, tail, np.ones(300)) in (np.inf, limits.CLEAR_GAIN_OF_SKEWED)


@pytest.mark.parametrize("value", [-999.0, 9999.0])
@pytest.mark.parametrize("share", [0.02, 0.04])
def test_values_that_stand_for_none_are_no_tail(value: float, share: float) -> None:
    rng = np.random.default_rng(0)
    for y in (rng.integers(1, 6, size=(600, 1)).astype(float), rng.normal(size=(600, 1)), rng.uniform(size=(600, 1))):
        dirty = np.where(rng.random((600, 1)) < share, value, y)
        for predicted in (y, np.full_like(y, np.median(y)), 0.9 * y + 0.1 * dirty):
            assert errors_ahead(predicted, dirty, np.ones(600)) <= limits.CLEAR_GAIN_WITHOUT_GROSS


def test_a_gain_is_measured_by_what_is_asked_of_it() -> None:
    shares = {"mild": 0.5, "firm": 0.7}
    values = {name: hits(share)["0"] for name, share in shares.items()}
    error = evidence_for(values, STRATA, ONES)["firm"].standard_error
    for ahead, chosen in ((0.9 * 0.2 / error, "firm"), (1.1 * 0.2 / error, "mild")):
        name, evidence = choose(
            list(shares),
            lambda name, _: name,
            lambda known: [{name: values[name] for name in known}],
            STRATA,
            ONES,
            epochs=100,
            ahead=lambda _, ahead=ahead: ahead,
        )
        assert name == chosen
        assert evidence["firm"].errors_ahead == ahead
        assert evidence["firm"].is_clear == (chosen == "firm")


def test_where_nothing_is_enough_another_is_never_taken() -> None:
    for values in ({"mild": np.zeros(40), "firm": np.ones(40)}, {"mild": np.zeros(40), "firm": np.zeros(40)}):
        name, evidence = choose(
            ["mild", "firm"],
            lambda name, _: name,
            lambda known, values=values: [{name: values[name] for name in known}],
            STRATA,
            ONES,
            epochs=100,
            ahead=lambda known: np.inf if len(known) == 2 else limits.CLEAR_GAIN,
        )
        assert name == "mild"
        assert not evidence["firm"].is_clear
        assert not np.isnan(evidence["firm"].margin)


def test_who_objects_is_asked_only_where_another_is_ahead() -> None:
    asked = []

    def objects(predicted: str) -> bool:
        asked.append(predicted)
        return True

    for last, n_asked in ((0.4, 0), (0.6, 1)):
        values = {name: hits(share)["0"] for name, share in (("mild", 0.5), ("firm", last))}
        name, evidence = choose(
            list(values),
            lambda name, _: name,
            lambda known, values=values: [{name: values[name] for name in known}],
            STRATA,
            ONES,
            epochs=100,
            ahead=lambda _: 0.0,
            objects=objects,
        )
        assert name == "mild"
        assert len(asked) == n_asked
        assert not evidence["firm"].is_clear


def test_a_gain_is_more_than_rounding() -> None:
    assert Evidence(-0.1, 1e-6, 0.0).is_clear
    assert not Evidence(-0.1, 1e-12, 0.0).is_clear


def test_scales_of_targets_withstand_gross_ones_beside_many_of_one_value() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=20001)
    assert deviation_of_most(normal) == pytest.approx(np.median(np.abs(normal - np.median(normal))) / 0.6745, rel=1e-3)
    zeros = np.where(np.arange(20001) % 3 == 0, normal, 0.0)
    assert deviation_of_most(zeros) == pytest.approx(1.0, rel=0.1)
    zeros[rng.permutation(len(zeros))[:5000]] += 1e6
    assert deviation_of_most(zeros) < 10.0
    assert deviation_of_most(np.ones(5)) == 1.0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("normal", False),
        ("constant", False),
        ("lognormal", False),
        ("exponential", False),
        ("two modes", False),
        ("few on both sides", False),
        ("many on both sides", True),
        ("mostly on one side", False),
        ("far on one side", True),
        ("far to the left", True),
        ("infinite in float32", True),
    ],
)
@pytest.mark.parametrize("n", [95, 1000])
def test_targets_look_gross_that_are_far_on_both_sides_or_farther_than_tails(kind: str, expected: bool, n: int) -> None:
    rng = np.random.default_rng(0)
    y, places = rng.normal(size=n), np.arange(n)
    if kind == "constant":
        y = np.zeros(n)
    elif kind == "lognormal":
        y = np.exp(1.2 * y)
    elif kind == "exponential":
        y = rng.exponential(np.exp(0.8 * y))
    elif kind == "two modes":
        y = np.where(places % 3 == 0, 10.0, 0.0) + 0.6 * y
    elif kind.startswith(("few", "many")):
        y[:: 50 if kind.startswith("few") else 8] = 8.0
        y[2 :: 100 if kind.startswith("few") else 16] = -8.0
    elif kind.startswith("mostly"):
        y[places % 10 == 0], y[places % 70 == 1] = 8.0, -8.0
    elif kind.startswith("far"):
        y[places % 7 == 0] = 30.0 if kind.endswith("one side") else -30.0
    elif kind.startswith("inf"):
        y[places % 7 == 0] = 1e300
    with np.errstate(all="raise"):
        assert look_gross(y[:, None], np.ones(n)) == expected
        # One of several is enough, and what has no weight doesn't count.
        assert look_gross(np.column_stack([rng.normal(size=n), y]), np.ones(n)) == expected
    assert not look_gross(y[:, None], np.zeros(n))
    assert not look_gross(np.append(rng.normal(size=n), y)[:, None], np.repeat([1.0, 0.0], n))
