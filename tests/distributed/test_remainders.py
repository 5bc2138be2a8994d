"""Remainders that follow the names of parameters from one grouping to another."""

from __future__ import annotations

import pytest
import torch

from skbgmd.distributed.remainders import Part, regroup

LIKE = torch.zeros(0)


def part_of(names: str, step: int = 3) -> Part:
    """Parameters of as many elements as their places in the alphabet, filled with these."""
    layout = {name: ord(name) - ord("a") + 1 for name in names}
    return Part(layout, torch.cat([torch.full((size,), float(size)) for size in layout.values()]), step, "state")


def sizes(names: str) -> dict[str, int]:
    return part_of(names).layout


def test_the_same_layout_keeps_everything():
    parts = [part_of("ab"), part_of("cd", 4)]
    part, others = regroup(parts, sizes("cd"), LIKE)
    assert (part.step, part.state, [other.layout for other in others]) == (4, "state", [sizes("ab")])


@pytest.mark.parametrize("names", ["abcd", "dcba", "bd", "a", "ae", "ca", "edcba"])
def test_each_parameter_finds_its_remainder(names):
    parts = [part_of("ab"), part_of("cd", 4)]
    part, others = regroup(parts, sizes(names), LIKE)
    new = set(names) - set("abcd")
    for name, piece in part.pieces().items():
        assert piece.tolist() == [0.0 if name in new else float(sizes(name)[name])] * sizes(name)[name]
    left = {name: piece for other in others for name, piece in other.pieces().items()}
    assert set(left) == set("abcd") - set(names)
    for piece in left.values():
        assert piece.tolist() == [float(len(piece))] * len(piece)


def test_no_remainder_is_lost_over_many_groupings():
    parts: list[Part] = [part_of("abcdefg")]
    for buckets in (["gfe", "dcba"], ["ga", "fb", "c"], ["abcdefg"]):
        for bucket in buckets:
            part, others = regroup(parts, sizes(bucket), LIKE)
            parts = [*others, part]
    (whole,) = parts
    torch.testing.assert_close(whole.remainder, part_of("abcdefg").remainder)


def test_dtype_and_device_are_those_wanted():
    part, _ = regroup([part_of("ab")], sizes("ba"), torch.zeros(0, dtype=torch.float64))
    same, _ = regroup([part_of("ab")], sizes("ab"), torch.zeros(0, dtype=torch.float64))
    assert part.remainder.dtype == same.remainder.dtype == torch.float64


def test_parameters_without_elements():
    part, others = regroup([Part({"a": 0, "b": 2}, torch.ones(2))], {"b": 2, "a": 0}, LIKE)
    assert part.remainder.tolist() == [1.0, 1.0]
    assert not others


def test_another_size_is_an_error():
    with pytest.raises(ValueError, match="parameter 'b' as many elements as before, 2; found 3"):
        regroup([part_of("ab")], {"b": 3}, LIKE)
