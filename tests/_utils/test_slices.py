"""Adjacent slices."""

from __future__ import annotations

from skbgmd._utils.slices import Slices, even_slices


def test_even_slices_cover_everything_in_order():
    for n in range(1, 30):
        for parts in range(1, n + 1):
            slices = even_slices(n, parts)
            assert [i for part in slices for i in range(n)[part]] == list(range(n))
            lengths = [part.stop - part.start for part in slices]
            assert max(lengths) - min(lengths) <= 1
            assert lengths == sorted(lengths, reverse=True)


def test_lengths():
    slices = Slices([slice(0, 2), slice(2, 7), slice(7, 8)])
    assert slices.lengths.tolist() == [2, 5, 1]
    assert (slices.shortest, slices.longest) == (1, 5)
    assert slices.lengths is slices.lengths
    assert even_slices(7, 3) is even_slices(7, 3)
