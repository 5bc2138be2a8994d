"""Processes that train together: what one process does, and medians, names and causes that need no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from skbgmd.aggregators import GeometricMedian, NearestNeighborMixing
from skbgmd.training._ranks import (
    _KINDS,
    ALONE,
    RankDivergedError,
    RankFailedError,
    Ranks,
    current_ranks,
    median_of_known,
    ranks_of,
    tell,
    together,
)


class Recording(Ranks):
    """Two ranks, of which the other answers what a test says; it notes errors that it is told of."""

    rank, size = 0, 2

    def __init__(self, *answers: Any) -> None:
        self.answers, self.told_of = list(answers), []

    def gather(self, value: Any, what: str) -> list[Any]:
        return [value, self.answers.pop(0) if self.answers else value]

    def report(self, error: BaseException) -> None:
        self.told_of.append(error)


class WithRanks(GeometricMedian):
    """A rule with ranks."""

    made: Any = ALONE

    def ranks(self) -> Ranks:
        return self.made


@pytest.fixture
def recording():
    WithRanks.made = Recording()
    yield WithRanks.made
    WithRanks.made = ALONE


def test_one_process_agrees_with_itself():
    ranks = Ranks()
    values = np.array([[1.0, np.nan]])
    np.testing.assert_array_equal(ranks.median(values, "x"), values)
    assert ranks.all(1, "x")
    assert not ranks.any([], "x")
    ranks.check_same({"a": object()}, "x")
    labels = np.array(["b", "a"])
    assert ranks.union(labels) is labels
    assert ranks.share(3, 0) is None
    assert ranks.seed(7) == 7
    assert ranks.in_step([1]) == [1]


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ([[1.0], [3.0]], 2.0),
        ([[1.0], [3.0], [100.0]], 3.0),
        ([[1.0], [np.nan]], np.nan),
        ([[1.0], [3.0], [np.nan]], 2.0),
        ([[np.nan], [np.nan], [1.0]], np.nan),
        ([[np.inf], [1.0], [2.0]], 2.0),
        ([[-np.inf], [np.inf]], np.nan),
        ([[np.inf], [np.inf]], np.inf),
        ([[1e308], [1e308]], 1e308),
        ([[0.1]], 0.1),
    ],
)
def test_medians_leave_out_nan(every, expected):
    np.testing.assert_array_equal(median_of_known(np.array(every)), [expected])


@pytest.mark.parametrize(
    ("own", "other", "found"),
    [
        (np.array([0, 2]), [1, 2], [0, 1, 2]),
        (np.array([0.5]), [0.25], [0.25, 0.5]),
        (np.array([False]), [True], [False, True]),
        (np.array(["cat"]), ["a long label"], ["a long label", "cat"]),
        (np.array(["b", "c"], dtype=object), ["a"], ["a", "b", "c"]),
        (np.array([3], dtype=np.uint8), [2], [2, 3]),
    ],
)
def test_labels_of_some_rank_are_labels_of_all(own, other, found):
    union = Recording(_KINDS[own.dtype.kind], [own.dtype.str, other]).union(own)
    assert union.tolist() == found
    assert union.dtype.kind == own.dtype.kind


@pytest.mark.parametrize(
    ("own", "other", "dtype", "labels"),
    [
        (np.array([0, 1], np.int8), np.array([1000]), "int64", [0, 1, 1000]),
        (np.array([0, 1]), np.array([7], np.int8), "int64", [0, 1, 7]),
        (np.array([200], np.uint8), np.array([-1], np.int8), "int16", [-1, 200]),
        (np.array([2**63 + 1], np.uint64), np.array([1]), "uint64", [1, 2**63 + 1]),
        (np.array([2**53 + 1], np.uint64), np.array([-1]), "int64", [-1, 2**53 + 1]),
        (np.array([1.0], np.float32), np.array([0.1]), "float64", [0.1, 1.0]),
        (np.array(["b"]), np.array(["longer"]), "<U6", ["b", "longer"]),
        (np.array(["b"]), np.array(["longer"], dtype=object), "object", ["b", "longer"]),
    ],
    ids=["wide", "narrow", "unsigned", "beyond int64", "mixed", "floats", "lengths", "objects"],
)
def test_labels_of_all_ranks_fit_their_dtype(own, other, dtype, labels):
    for one, two in ((own, other), (other, own)):
        union = Recording(_KINDS[two.dtype.kind], [two.dtype.str, two.tolist()]).union(one)
        assert union.tolist() == labels
        assert union.dtype == dtype


def test_labels_that_no_dtype_holds_are_refused():
    with pytest.raises(ValueError, match=r"An integer dtype must hold the labels .* found -1 and 9223372036854775809"):
        Recording("integers", ["<u8", [2**63 + 1]]).union(np.array([-1]))
    with pytest.raises(ValueError, match=r"labels in y must have one dtype .* found float64, float32"):
        Recording("floats", ["<f4", np.array([0.1], np.float32).tolist()]).union(np.array([0.1]))
    with pytest.raises(ValueError, match=r"kind of the labels .* 'integers' on rank 0; 'booleans' on rank 1"):
        Recording("booleans").union(np.array([1]))


def test_differences_name_the_ranks_and_what_they_have():
    with pytest.raises(ValueError, match=r"max_epochs must be the same on all ranks; found 3 on rank 0; 5 on rank 1\."):
        Recording(5).check_same(3, "max_epochs")
    with pytest.raises(ValueError, match=r"Call \(b\) must be .* found 2 on rank 0; None on rank 1"):
        Recording({"a": 1}).check_same({"a": 1, "b": 2}, "Call")
    with pytest.raises(
        ValueError, match=r"The kind of the labels in y must be the same .*'integers' on rank 0; 'floats' on"
    ):
        Recording("floats").union(np.array([1]))


def test_shares_are_disjoint_and_asked_for_once():
    shares = []
    for rank in (0, 1):
        ranks = Recording()
        ranks.rank, ranks.splits_data = rank, True
        shares.append(ranks.share(7, 3))
        assert ranks.share(7, 3) is None
    assert sorted(np.concatenate(shares)) == list(range(7))
    assert [len(share) for share in shares] == [4, 3]
    alone = Recording()
    alone.splits_data = True
    with pytest.raises(ValueError, match="a sample for each of 2 ranks; found 1"):
        alone.share(1, 0)
    other = Recording(5, {"X": 1})
    other.splits_data = True
    with pytest.raises(
        ValueError, match=r"the checksums of the data \(X\) must be the same .* found 2 on rank 0; 1 on"
    ):
        other.share(5, 0, {"X": 2})


def test_ranks_with_fewer_batches_begin_again():
    assert list(Recording(5).in_step(["a", "b"])) == ["a", "b", "a", "b", "a"]
    assert list(Recording(1).in_step(["a", "b"])) == ["a", "b"]
    with pytest.raises(ValueError, match="found none on rank 0"):
        Recording(1).in_step([])


def test_seeds_differ_by_rank():
    second = Recording()
    second.rank = 1
    assert Recording().seed(5) == 5 != second.seed(5)
    assert 0 <= second.seed(5) < 2**31


def test_ranks_are_those_of_a_rule_or_of_one_in_it(recording):
    assert ranks_of(WithRanks()) is recording
    assert ranks_of(NearestNeighborMixing(WithRanks())) is recording
    assert ranks_of("geometric_median") is ranks_of(None) is ranks_of(GeometricMedian()) is ALONE


def test_a_training_in_a_training_is_of_the_same_ranks(recording):
    assert current_ranks() is ALONE
    with together(WithRanks()) as outer:
        WithRanks.made = Recording()
        with together(WithRanks()) as inner:
            assert inner is outer is current_ranks() is recording
        with together(GeometricMedian()) as other:
            assert other is current_ranks() is ALONE
        assert current_ranks() is outer
    assert current_ranks() is ALONE


def fail_in_both() -> None:
    with together(WithRanks()), together(WithRanks()):
        try:
            raise ValueError("first")
        except ValueError as error:
            tell(current_ranks(), error)
            raise KeyError("of the first") from None


def fail_again() -> None:
    with together(WithRanks()):
        try:
            raise ValueError("dealt with")
        except ValueError as error:
            tell(current_ranks(), error)
        raise OSError("later")


def fail_with(error: Exception) -> None:
    with together(WithRanks()), together(WithRanks()):
        raise error


def fail_by(kind: type[RankFailedError]) -> None:
    with together(WithRanks()):
        try:
            raise kind("elsewhere")
        except kind as error:
            raise RuntimeError("outer") from error


def test_each_error_is_told_once(recording):
    with pytest.raises(KeyError):
        fail_in_both()
    assert [str(error) for error in recording.told_of] == ["first"]
    # One that was dealt with says nothing of a later one.
    with pytest.raises(OSError, match="later"):
        fail_again()
    assert [str(error) for error in recording.told_of[1:]] == ["dealt with", "later"]


def test_errors_of_an_earlier_training_are_none_of_this_one(recording):
    error = RankFailedError("before")
    try:
        raise error
    except RankFailedError:
        with pytest.raises(KeyError):
            fail_in_both()
    assert [str(error) for error in recording.told_of] == ["first"]
    again = ValueError("again")
    for _ in range(2):
        recording = WithRanks.made = Recording()
        try:
            fail_with(again)
        except ValueError:
            assert recording.told_of == [again]
            recording = WithRanks.made = Recording()
            with pytest.raises(ValueError, match="again"):
                fail_with(again)
            assert recording.told_of == [again]


@pytest.mark.parametrize("kind", [RankFailedError, RankDivergedError])
def test_errors_of_others_are_not_told_back(recording, kind):
    with pytest.raises(RuntimeError, match="outer"):
        fail_by(kind)
    assert recording.told_of == []
