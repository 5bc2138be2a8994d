"""Typical distances that are remembered."""

from __future__ import annotations

import numpy as np
import pytest

from skbgmd._utils import limits
from skbgmd.aggregators.base import pack_state, unpack_state
from skbgmd.aggregators.memory import Scale, ShareMemory


def scales(distances: list[float]) -> list[float]:
    scale, values = Scale(), []
    for distance in distances:
        scale = scale.update(distance)
        values.append(scale.value)
    return values


def test_the_median_of_the_first_steps_is_the_scale() -> None:
    assert scales([90.0, 3.0, 4.0, 90.0, 1.0]) == [90.0, 3.0, 4.0, 4.0, 4.0]


def test_a_large_scale_is_kept_and_fades() -> None:
    values = scales([1.0] * limits.SCALE_WINDOW + [1e-3] * 100)
    assert values[limits.SCALE_WINDOW + 2 :] == pytest.approx([limits.SCALE_DECAY ** (i + 1) for i in range(98)])


def test_steps_of_which_most_rows_are_bad_leave_no_trace() -> None:
    rng = np.random.default_rng(0)
    distances = 1.0 + 0.1 * rng.random(500)
    distances[::4] = 1e6
    assert max(scales(distances.tolist())[1:]) < 1.2


def test_a_larger_scale_is_believed_once_most_steps_say_so() -> None:
    values = scales([1.0] * 10 + [50.0] * 5)
    assert values[11] == 1.0
    assert values[12] == 50.0


def test_the_largest_scale_is_of_five_steps_in_a_row_and_lasts() -> None:
    scale, largest = Scale(), []
    for distance in [2.0, 2.0, 90.0, 90.0, 90.0, 2.0, 1.0, 0.0, 1.0, 1.0] + [1e-3] * 50 + [3.0] * 4:
        scale = scale.update(distance)
        largest.append(scale.largest)
    assert largest == [0.0] * 4 + [2.0] * (len(largest) - 4)
    assert scale.update(4.0).largest == 3.0
    assert scale.update(0.0).largest == 2.0


def test_scales_that_were_saved_without_the_largest_are_read() -> None:
    packed = pack_state(Scale(2.0, (2.0, 1.0)))
    del packed["values"]["largest"]
    assert unpack_state(packed) == Scale(2.0, (2.0, 1.0))


def test_steps_in_which_most_rows_coincide_have_no_scale() -> None:
    assert scales([0.0, 0.0, 0.0, 2.0, 0.0, 0.0]) == pytest.approx(
        [0.0, 0.0, 0.0, 2.0, 2.0 * limits.SCALE_DECAY, 2.0 * limits.SCALE_DECAY**2]
    )


def test_scales_are_saved_as_plain_containers() -> None:
    scale = Scale().update(2.0).update(1.0)
    again = unpack_state(pack_state(scale))
    assert again.value == scale.value
    assert again.update(7.0).value == scale.update(7.0).value


def test_the_largest_share_of_the_last_steps() -> None:
    memory, values = ShareMemory(), []
    for share in (0.2, 0.0, 0.0, 0.4, 0.0, 0.0, 0.1, 0.0, 0.0):
        memory = memory.update(share)
        values.append(memory.value)
    assert values == [0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4, 0.1]
    assert unpack_state(pack_state(memory)) == memory
    assert ShareMemory().value == 0.0
