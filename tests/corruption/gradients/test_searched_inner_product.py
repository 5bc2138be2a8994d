"""Searched inner product manipulation: which rule the search is against."""

from __future__ import annotations

import pytest
from attacking import counted, matrix

from skbgmd import geometric_median
from skbgmd.corruption import (
    AttackContext,
    SearchedInnerProduct,
)


def test_the_search_is_against_the_rule_of_the_context_unless_another_is_given():
    gradients = matrix(20)
    first, asked_first = counted(geometric_median)
    second, asked_second = counted(geometric_median)
    context = AttackContext(first)
    SearchedInnerProduct(fraction=0.4)(gradients, 0, context)
    before = len(asked_first)
    assert before > 0
    assert not asked_second
    SearchedInnerProduct(fraction=0.4, aggregator=second)(gradients, 0, context)
    assert len(asked_first) == before
    assert asked_second
    with pytest.raises(ValueError, match="aggregator must be a function"):
        SearchedInnerProduct(fraction=0.4)(gradients, 0, AttackContext(step=3))
