"""Some of the random cases, with fixed seeds."""

from __future__ import annotations

import pytest

from .checks import check, draw

#: Cases of each test: a thousand in all.
CASES = 50


@pytest.mark.parametrize("first", range(0, 1000, CASES))
def test_random_cases(first):
    for seed in range(first, first + CASES):
        case = draw(seed)
        try:
            check(case)
        except Exception as error:
            error.add_note(f"{case}\nRun it again: python -m tests.fuzz --seed {seed} --cases 1")
            raise
