"""Attacks on gradients: which rows, what they become, and what the attacks promise."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from conftest import extremes
from skbgmd import block_geometric_median
from skbgmd._utils import limits
from skbgmd.corruption import (
    GRADIENT_CORRUPTIONS,
    AdditiveNoise,
    ALittleIsEnough,
    BitFlip,
    ConstantRows,
    DecoyBlock,
    GradientCorruption,
    InnerProduct,
    Mimic,
    MinMax,
    MinSum,
    NonFinite,
    SignFlip,
    get_gradient_corruption,
)
from skbgmd.corruption.gradients.omniscient import min_max_length, min_sum_length

NAMES = list(GRADIENT_CORRUPTIONS)


def matrix(b=12, d=40, seed=0, dtype=torch.float64):
    """Rows around a direction, as gradients are."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=d) + 0.5 * rng.normal(size=(b, d))).to(dtype)


def same(a, b):
    """Equal bit by bit, NaN included."""
    return torch.equal(torch.nan_to_num(a, nan=-77.0), torch.nan_to_num(b, nan=-77.0))


def split(attack, gradients, seed=0):
    """The attacked matrix, its corrupt rows and the others."""
    attacked = gradients.clone()
    corrupt = attack.apply_(attacked, random_state=seed)
    honest = torch.tensor([i for i in range(len(gradients)) if i not in corrupt.tolist()])
    return attacked, corrupt, honest


# What all attacks have in common


@pytest.mark.parametrize("name", NAMES)
@given(
    b=st.integers(2, 20),
    fraction=st.sampled_from([0.0, 0.1, 0.2, 0.29, 0.4, 0.49]),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_exactly_the_drawn_rows_change(name, b, fraction, seed, dtype):
    gradients = matrix(b, 17, dtype=dtype)
    before = gradients.clone()
    attack = GRADIENT_CORRUPTIONS[name](fraction=fraction)
    attacked = attack(gradients, random_state=seed)
    assert torch.equal(gradients, before)
    assert attacked.dtype == dtype
    in_place = before.clone()
    corrupt = attack.apply_(in_place, random_state=seed)
    assert same(in_place, attacked)
    assert corrupt.dtype == torch.int64
    assert corrupt.tolist() == sorted(set(corrupt.tolist()))
    assert len(corrupt) == int(fraction * b + 1e-9)
    changed = ((attacked != gradients) | attacked.isnan()).any(dim=1)
    assert not changed[[i for i in range(b) if i not in corrupt.tolist()]].any()
    # Every row is its own, so that each replacement shows.
    assert changed.sum() == len(corrupt)
    assert same(clone(attack).set_params(random_state=seed)(gradients), attacked)


@pytest.mark.parametrize("name", NAMES)
def test_one_source_draws_other_rows_at_every_step(name):
    attack, source = GRADIENT_CORRUPTIONS[name](fraction=0.4), np.random.RandomState(0)
    rows = [tuple(attack.apply_(matrix(20), random_state=source).tolist()) for _ in range(5)]
    assert len(set(rows)) == 5
    again, source = [], np.random.RandomState(0)
    for _ in range(5):
        again.append(tuple(attack.apply_(matrix(20), random_state=source).tolist()))
    assert again == rows


@pytest.mark.parametrize("name", NAMES)
def test_a_call_changes_nothing_in_the_attack(name):
    attack = GRADIENT_CORRUPTIONS[name](fraction=0.4, random_state=3)
    before = dict(vars(attack))
    assert same(attack(matrix()), attack(matrix()))
    assert vars(attack) == before
    assert attack.get_params() == clone(attack).get_params()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:No rule withstands")
def test_without_honest_rows(name):
    attack = GRADIENT_CORRUPTIONS[name](fraction=1.0, random_state=0)
    gradients = matrix(5)
    # The row that is mimicked stays.
    assert len(attack.apply_(gradients)) == (4 if name == "mimic" else 5)
    if name != "non_finite":
        assert torch.isfinite(gradients).all()


@pytest.mark.parametrize("name", NAMES)
def test_omniscient_attacks_are_those_that_look_at_other_rows(name):
    attack, gradients = GRADIENT_CORRUPTIONS[name](fraction=0.4), matrix()
    attacked, corrupt, honest = split(attack, gradients)
    other = gradients.clone()
    other[honest] = 3.0 * gradients[honest] - 1.0
    rows = split(attack, other)[0][corrupt]
    assert attack.omniscient != same(rows, attacked[corrupt])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_recorded_for_autograd(name):
    attack = GRADIENT_CORRUPTIONS[name](fraction=0.4, random_state=0)
    leaf = matrix().requires_grad_()
    assert not attack(leaf).requires_grad
    attack.apply_(leaf)
    assert leaf.grad_fn is None


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_rows_is_hopeless(name):
    attack = GRADIENT_CORRUPTIONS[name](fraction=0.5, random_state=0)
    for door in (attack, attack.apply_):
        with pytest.warns(UserWarning, match=r"No rule withstands fraction=0\.5") as caught:
            door(matrix())
        assert caught[0].filename == __file__


@pytest.mark.parametrize("name", NAMES)
def test_cuda(name, cuda):
    attack, gradients = GRADIENT_CORRUPTIONS[name](fraction=0.4, random_state=0), matrix()
    on_device = gradients.to(cuda)
    corrupt = attack.apply_(on_device)
    assert corrupt.device.type == on_device.device.type == "cuda"
    if name != "additive_noise":
        assert torch.allclose(on_device.cpu(), attack(gradients), equal_nan=True)


@pytest.mark.parametrize(
    ("gradients", "kind", "message"),
    [
        (np.eye(3), TypeError, "gradients must be a tensor of a floating dtype; found ndarray"),
        (torch.eye(3, dtype=torch.int64), TypeError, r"floating dtype; found torch\.int64"),
        (torch.ones(3), ValueError, r"gradients must have shape \(b, d\).*found \(3,\)"),
        (torch.ones(0, 3), ValueError, r"found \(0, 3\)"),
    ],
)
def test_gradients_are_checked(gradients, kind, message):
    for door in (BitFlip(), BitFlip().apply_):
        with pytest.raises(kind, match=message):
            door(gradients)


@pytest.mark.parametrize(
    ("attack", "kind", "message"),
    [
        (BitFlip(fraction=-0.1), ValueError, "fraction must be at least 0 and at most 1; found -0.1"),
        (SignFlip(fraction="x"), TypeError, "fraction must be a number; found 'x'"),
        (BitFlip(scale=float("inf")), ValueError, "scale must be"),
        (AdditiveNoise(std=-1.0), ValueError, "std must be greater than 0"),
        (ALittleIsEnough(z="a"), TypeError, "z must be a number"),
        (InnerProduct(epsilon=0), ValueError, "epsilon must be greater than 0"),
        (Mimic(target=1.5), TypeError, "target must be an integer"),
        (Mimic(target=-1), ValueError, "target must be at least 0"),
        (Mimic(target=12), ValueError, "target must be less than the number of rows, 12; found 12"),
        (MinMax(direction="up"), ValueError, "direction must be one of 'std', 'sign', 'unit'; found 'up'"),
        (MinSum(direction=None), ValueError, "direction must be one of"),
        (ConstantRows(value=0), ValueError, "value must be greater than 0"),
        (ConstantRows(share=1.5), ValueError, "share must be greater than 0 and at most 1"),
        (DecoyBlock(value=-1.0), ValueError, "value must be greater than 0"),
        (DecoyBlock(scale=float("nan")), ValueError, "scale must be"),
        (DecoyBlock(share=0.0), ValueError, "share must be greater than 0"),
        (NonFinite(value="none"), ValueError, "value must be one of 'nan', 'inf'; found 'none'"),
        (BitFlip(random_state="now"), ValueError, "cannot be used to seed"),
    ],
)
def test_parameters_are_checked_in_a_call(attack, kind, message):
    with pytest.raises(kind, match=message):
        attack(matrix())


def test_lookup():
    for name, kind in GRADIENT_CORRUPTIONS.items():
        assert type(get_gradient_corruption(name)) is kind
    mine = BitFlip(scale=-3.0)
    assert get_gradient_corruption(mine) is mine
    with pytest.raises(ValueError, match=r"gradient_corruption must be one of 'bit_flip', .*; found 'bitflip'"):
        get_gradient_corruption("bitflip")


def test_every_attack_has_a_name():
    def concrete(kind):
        return [
            c for sub in kind.__subclasses__() for c in ([sub] if not inspect.isabstract(sub) else []) + concrete(sub)
        ]

    library = {kind for kind in concrete(GradientCorruption) if kind.__module__.startswith("skbgmd")}
    assert library == set(GRADIENT_CORRUPTIONS.values())


# What each does


def test_bit_and_sign_flip():
    gradients = matrix()
    for attack, factor in ((BitFlip(fraction=0.4), -100.0), (BitFlip(fraction=0.4, scale=3.0), 3.0), (SignFlip(), -1)):
        attacked, corrupt, _ = split(attack, gradients)
        assert torch.equal(attacked[corrupt], factor * gradients[corrupt])


def test_additive_noise_has_its_standard_deviation():
    gradients = matrix(10, 4000, dtype=torch.float32)
    attacked, corrupt, _ = split(AdditiveNoise(fraction=0.4, std=3.0), gradients)
    noise = attacked[corrupt] - gradients[corrupt]
    assert float(noise.std()) == pytest.approx(3.0, rel=0.02)
    assert float(torch.corrcoef(noise).sub(torch.eye(4)).abs().max()) < 0.1


def test_a_little_is_enough_and_inner_product():
    gradients = matrix()
    attacked, corrupt, honest = split(ALittleIsEnough(fraction=0.4, z=0.7), gradients)
    mean, std = gradients[honest].mean(dim=0), gradients[honest].std(dim=0, correction=0)
    assert torch.allclose(attacked[corrupt], (mean - 0.7 * std).expand(len(corrupt), -1), rtol=1e-12)
    attacked, corrupt, _ = split(InnerProduct(fraction=0.4, epsilon=0.3), gradients)
    assert torch.allclose(attacked[corrupt], (-0.3 * mean).expand(len(corrupt), -1), rtol=1e-12)


@pytest.mark.parametrize("target", [0, 7])
def test_mimic_copies_the_same_row_at_every_step(target):
    gradients, source = matrix(), np.random.RandomState(0)
    for _ in range(20):
        attacked = gradients.clone()
        corrupt = Mimic(fraction=0.4, target=target).apply_(attacked, random_state=source)
        assert target not in corrupt
        assert torch.equal(attacked[corrupt], gradients[target].expand(len(corrupt), -1))


def largest_distance(rows, point):
    return float(torch.linalg.vector_norm(rows - point, dim=1).max())


def sum_of_squares(rows, point):
    return float(((rows - point) ** 2).sum())


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
@given(b=st.integers(4, 15), d=st.integers(1, 30), seed=st.integers(0, 10**6), offset=st.sampled_from([0.0, 1.0, 1e3]))
def test_min_max_and_min_sum_go_as_far_as_their_bound(kind, direction, b, d, seed, offset):
    rng = np.random.default_rng(seed)
    gradients = torch.from_numpy(rng.standard_t(3, size=(b, d)) + offset * rng.normal(size=d))
    attacked, corrupt, honest = split(kind(fraction=0.3, direction=direction), gradients, seed)
    rows, point = gradients[honest], attacked[corrupt[0]]
    assert torch.equal(attacked[corrupt], point.expand(len(corrupt), -1))
    cost = largest_distance if kind is MinMax else sum_of_squares
    bound = max(cost(rows, row) for row in rows)
    step = point - rows.mean(dim=0)
    assert cost(rows, point) <= bound * (1 + 1e-9)
    assert cost(rows, rows.mean(dim=0) + 1.01 * step) > bound
    mean = rows.mean(dim=0)
    expected = {"std": -rows.std(dim=0, correction=0), "sign": -mean.sign(), "unit": -mean / mean.norm()}[direction]
    gamma = float(step @ expected / (expected @ expected))
    assert gamma > 0.0
    assert torch.allclose(step, gamma * expected, rtol=1e-6, atol=1e-9 * float(mean.abs().max()))


def test_min_max_takes_columns_in_chunks():
    gradients = matrix(8, 2 * limits.CORRUPTED_COLUMNS + 5, dtype=torch.float32)
    attacked, corrupt, honest = split(MinMax(fraction=0.3), gradients)
    rows = gradients[honest].double()
    bound = max(largest_distance(rows, row) for row in rows)
    assert largest_distance(rows, attacked[corrupt[0]].double()) == pytest.approx(bound, rel=1e-5)


def test_min_max_length_by_bisection(rng):
    centred = rng.normal(size=(9, 6))
    centred -= centred.mean(axis=0)
    p = rng.normal(size=6)
    args = torch.from_numpy(centred @ centred.T), torch.from_numpy(centred @ p), float(p @ p)
    distances = np.linalg.norm(centred[:, None] - centred, axis=2)
    for length, cost, bound in (
        (min_max_length, lambda z: np.linalg.norm(z, axis=1).max(), distances.max()),
        (min_sum_length, lambda z: (z**2).sum(), (distances**2).sum(axis=1).max()),
    ):
        low, high = 0.0, 100.0
        for _ in range(80):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if cost(middle * p - centred) <= bound else (low, middle)
        assert length(*args) == pytest.approx(low, rel=1e-10)


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_min_max_where_the_honest_rows_are_equal(kind, direction, value):
    gradients = torch.full((5, 3), value, dtype=torch.float64)
    assert torch.equal(kind(fraction=0.4, direction=direction, random_state=0)(gradients), gradients)


def test_constant_rows_are_the_same_at_every_step():
    gradients, source = matrix(d=35), np.random.RandomState(0)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    for _ in range(3):
        attacked = gradients.clone()
        corrupt = ConstantRows(fraction=0.4, value=7.0).apply_(attacked, random_state=source)
        assert torch.equal(attacked[corrupt, :4], (7.0 * signs).expand(len(corrupt), -1))
        assert torch.equal(attacked[corrupt, 4:], gradients[corrupt, 4:])
    assert (ConstantRows(fraction=0.4, share=1.0, random_state=0)(gradients).abs() == 1e6).all(dim=1).sum() == 4


@pytest.mark.parametrize(("fraction", "n_decoys", "n_others"), [(0.1, 1, 0), (0.2, 1, 1), (0.35, 2, 2), (0.3, 2, 1)])
def test_decoys_hold_the_block_and_the_others_turn_around_off_it(fraction, n_decoys, n_others):
    gradients = matrix(13, 40)
    attacked, corrupt, _ = split(DecoyBlock(fraction=fraction), gradients)
    decoys = [i for i in corrupt.tolist() if (attacked[i, :4].abs() == 1e9).all()]
    others = [i for i in corrupt.tolist() if i not in decoys]
    assert (len(decoys), len(others)) == (n_decoys, n_others)
    assert torch.equal(attacked[decoys, 4:], gradients[decoys, 4:])
    assert torch.equal(attacked[others, :4], gradients[others, :4])
    assert torch.equal(attacked[others, 4:], -1000.0 * gradients[others, 4:])


def test_attacks_on_blocks_own_a_block_that_is_selected_by_plain_norms():
    gradients = matrix(20, 400)
    for attack in (ConstantRows(fraction=0.4), DecoyBlock(fraction=0.4)):
        attacked = attack(gradients, random_state=0)
        result = block_geometric_median(attacked, clip_scores=False, return_result=True)
        assert result.block.tolist() == list(range(40))
        honest = torch.linalg.vector_norm(gradients, dim=1).max()
        assert torch.linalg.vector_norm(attacked.mean(dim=0)) > 100 * honest
        assert torch.linalg.vector_norm(result.median) < 3 * honest


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_non_finite(value):
    attacked, corrupt, _ = split(NonFinite(fraction=0.4, value=value), matrix())
    assert (attacked[corrupt].isnan() if value == "nan" else attacked[corrupt] == float("inf")).all()


# Numbers of any size


@pytest.mark.parametrize("name", [name for name in NAMES if name != "non_finite"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_rows_of_any_size_stay_finite(name, dtype):
    for fraction in (0.2, 0.45):
        for kind, gradients in extremes(dtype).items():
            attack = GRADIENT_CORRUPTIONS[name](fraction=fraction)
            attacked = attack(gradients, random_state=0)
            assert attacked.dtype == dtype
            assert torch.isfinite(attacked).all(), kind


@pytest.mark.parametrize("name", ["a_little_is_enough", "inner_product", "min_max", "min_sum"])
@pytest.mark.parametrize("size", [1e-280, 1e-20, 1e20, 1e100, 1e200, 1e300])
def test_attacks_scale_with_the_gradients(name, size):
    gradients = matrix()
    attack = GRADIENT_CORRUPTIONS[name](fraction=0.4)
    expected = attack(gradients, random_state=0)
    torch.testing.assert_close(attack(gradients * size, random_state=0) / size, expected, rtol=1e-9, atol=1e-9)
    if 1e-30 < size < 1e30:
        single = attack((gradients * size).float(), random_state=0).double() / size
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("direction", ["std", "sign", "unit"])
@pytest.mark.parametrize("kind", [MinMax, MinSum])
def test_directions_of_any_size(direction, kind):
    gradients = matrix()
    expected = kind(0.4, direction)(gradients, random_state=0)
    for size in (1e-200, 1e200):
        found = kind(0.4, direction)(gradients * size, random_state=0) / size
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_is_beyond_a_dtype_becomes_its_largest_number():
    gradients = torch.full((5, 4), 1000.0, dtype=torch.float16)
    for attack, sign in ((BitFlip(0.4), -1), (ConstantRows(0.4, value=1e9, share=1.0), None), (BitFlip(0.4, 1e9), 1)):
        attacked, corrupt, _ = split(attack, gradients)
        assert (attacked[corrupt].abs() == 65504.0).all()
        if sign is not None:
            assert (attacked[corrupt].sign() == sign).all()
    gradients[0] = float("inf")
    attacked = BitFlip(0.4)(gradients, random_state=0)
    assert attacked[0].isinf().all()
