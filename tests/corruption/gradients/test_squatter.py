"""Squatter: what corrupt rows are on the block and off it, and that a block method is taken in."""

from __future__ import annotations

import pytest
import torch
from attacking import matrix, split

from skbgmd import block_geometric_median, geometric_median
from skbgmd.corruption import AttackContext, Squatter
from skbgmd.corruption.gradients.base import clipped_scores, to_order_one
from skbgmd.corruption.gradients.squatter import weiszfeld


def loud(seed=0):
    """Rows of which a tenth of the columns are larger than the others."""
    noise = matrix(20, 200, seed)
    gradients = noise - noise.mean(dim=0) + torch.where(torch.arange(200) % 3 == 0, -1.0, 1.0)
    gradients[:, 30:50] *= 4.0
    return gradients


@pytest.mark.parametrize("seed", range(5))
def test_on_the_block_they_are_the_median_and_off_it_wrong(seed):
    gradients = loud(seed)
    attacked, corrupt, honest = split(Squatter(fraction=0.4), gradients)
    block = clipped_scores(to_order_one(attacked)[0]).topk(20).indices
    off = torch.ones(200, dtype=torch.bool).index_fill_(0, block, False)
    row, others, mean = attacked[corrupt[0]], gradients[honest], gradients[honest].mean(dim=0)
    assert torch.equal(attacked[corrupt], row.expand(len(corrupt), -1))
    torch.testing.assert_close(row[block], geometric_median(others[:, block]), rtol=1e-2, atol=1e-2)
    assert float(row[off].norm()) == pytest.approx(float(others[:, off].norm(dim=1).median()), rel=1e-9)
    assert float(torch.cosine_similarity(row[off], -mean[off], dim=0)) == pytest.approx(1.0)


def test_a_block_method_trusts_them_more_than_others():
    gradients = loud()
    attacked, corrupt, honest = split(Squatter(fraction=0.4), gradients)
    weights = block_geometric_median(attacked, return_result=True).weights
    assert min(weights[corrupt.tolist()]) >= max(weights[honest.tolist()])


def test_the_block_is_the_rule_s_own_where_the_context_tells_it():
    block, asked = torch.arange(7, 12), []

    def select(rows):
        asked.append(rows)
        return block

    gradients = loud()
    attacked = gradients.clone()
    corrupt = Squatter(fraction=0.4).apply_(attacked, 0, AttackContext(block=select))
    honest = torch.tensor([i for i in range(20) if i not in corrupt.tolist()])
    mean = gradients[honest].mean(dim=0)
    right = (attacked[corrupt[0]] * mean > 0.0).nonzero().flatten()
    assert set(right.tolist()) == {j for j in block.tolist() if mean[j] * attacked[corrupt[0], j] > 0.0}
    assert len(right) >= 4
    assert len(asked) == 2
    # A rule that looks at all columns tells none.
    expected = Squatter(fraction=0.4)(gradients, 0)
    assert torch.equal(Squatter(fraction=0.4)(gradients, 0, AttackContext(block=lambda rows: None)), expected)


def test_own_noise_off_the_block_is_kept_to_the_median_norm():
    gradients = loud()
    attacked, corrupt, honest = split(Squatter(fraction=0.4, own=True), gradients)
    plain, _, _ = split(Squatter(fraction=0.4), gradients)
    mean = gradients[honest].mean(dim=0)
    assert len({tuple(row.tolist()) for row in attacked[corrupt]}) == len(corrupt)
    off = (plain[corrupt[0]] * mean < 0.0).logical_and(attacked[corrupt].std(dim=0) > 0.0)
    longest = gradients[honest].norm(dim=1).max()
    assert (attacked[corrupt][:, off].norm(dim=1) <= longest).all()
    assert (torch.cosine_similarity(attacked[corrupt][:, off], -mean[off].expand(len(corrupt), -1)) > 0.3).all()


@pytest.mark.parametrize("own", [False, True])
def test_a_searched_length_does_more_harm_to_a_rule_that_filters(own):
    gradients = loud()

    def aggregate(rows):
        return block_geometric_median(rows, complement="filtered")

    def block(rows):
        return block_geometric_median(rows, return_result=True).block

    def progress(attack):
        attacked = gradients.clone()
        corrupt = attack.apply_(attacked, 0, AttackContext(aggregate, block=block))
        mean = gradients[[i for i in range(20) if i not in corrupt.tolist()]].mean(dim=0)
        return float(aggregate(attacked) @ mean)

    assert progress(Squatter(fraction=0.4, own=own, searched=True)) <= progress(Squatter(fraction=0.4, own=own))


def test_a_search_needs_the_rule():
    with pytest.raises(ValueError, match="searched must be False where no context tells the rule"):
        Squatter(searched=True)(loud())


def test_weiszfeld(rng):
    rows = torch.from_numpy(rng.standard_t(2, size=(15, 6))).div(10.0)
    torch.testing.assert_close(weiszfeld(rows), geometric_median(rows), rtol=1e-2, atol=1e-3)
    assert torch.equal(weiszfeld(torch.ones(4, 3)), torch.ones(3))
