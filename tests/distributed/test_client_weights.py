"""Claims of clients: what is a claim, and what a lie is worth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbgmd.distributed.client_weights import cap_claims, n_distrusted, read_claim

#: Numbers of examples of six clients, one of which has more than half.
SIZES = np.array([17_834.0, 9_000.0, 4_000.0, 2_500.0, 1_000.0, 190.0])


@pytest.mark.parametrize("value", [0, 7, 2.5, np.int32(7), np.float32(2.5), Fraction(1, 2), 10**300, 5e-324])
def test_numbers_are_claims(value):
    assert read_claim(value) == float(value)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -1e-300,
        math.nan,
        math.inf,
        -math.inf,
        10**400,
        "12",
        b"12",
        None,
        True,
        np.True_,
        [12],
        [],
        {},
        1j,
        np.ones(1),
    ],
)
def test_anything_else_is_no_claim(value):
    with pytest.raises(ValueError, match="'num-examples' must be a finite number of at least zero; found"):
        read_claim(value)


def test_a_long_text_is_cut_in_the_error():
    with pytest.raises(ValueError, match="must be a finite number") as raised:
        read_claim("x" * 10_000)
    assert len(str(raised.value)) < 200


def test_claims_are_capped_at_the_lower_median():
    np.testing.assert_array_equal(cap_claims(SIZES), [2_500.0, 2_500.0, 2_500.0, 2_500.0, 1_000.0, 190.0])
    np.testing.assert_array_equal(cap_claims(SIZES, 2.0), [5_000.0, 5_000.0, 4_000.0, 2_500.0, 1_000.0, 190.0])


def test_no_cap_and_equal_weights():
    assert cap_claims(SIZES, None) is SIZES
    np.testing.assert_array_equal(cap_claims(SIZES, 0.0), np.full(6, 190.0))


def test_clients_without_examples_have_no_weight_and_no_vote():
    np.testing.assert_array_equal(cap_claims(np.array([0.0, 0.0, 0.0, 4.0, 8.0])), [0.0, 0.0, 0.0, 4.0, 4.0])
    np.testing.assert_array_equal(cap_claims(np.array([0.0, 4.0, 8.0]), 0.0), [0.0, 4.0, 4.0])
    np.testing.assert_array_equal(cap_claims(np.zeros(3)), np.zeros(3))
    assert len(cap_claims(np.empty(0))) == 0


def test_a_cap_beyond_the_range_of_numbers_is_none():
    claims = np.array([1e308, 1.5e308, 1e300])
    np.testing.assert_array_equal(cap_claims(claims, 10.0), claims)


@given(
    honest=st.lists(st.floats(1.0, 1e6), min_size=2, max_size=20),
    lies=st.lists(st.floats(0.0, 1e300), min_size=1, max_size=20),
    max_claim=st.floats(1.0, 4.0),
)
def test_fewer_than_half_cant_raise_the_cap_beyond_an_honest_claim(honest, lies, max_claim):
    lies = lies[: len(honest) - 1]
    capped = cap_claims(np.array(lies + honest), max_claim)
    assert capped.max() <= max_claim * max(honest)


def test_those_with_less_than_half_of_their_share_are_distrusted():
    claimed = np.array([2.0, 1.0, 1.0])
    assert n_distrusted(np.array([0.5, 0.25, 0.25]), claimed) == 0
    assert n_distrusted(np.array([0.2, 0.5, 0.3]), claimed) == 1
    assert n_distrusted(np.array([0.0, 1.0, 0.0]), claimed) == 2
