"""Common properties of all attacks on gradients: the rows that change, determinism, parameters, finite numbers."""

from __future__ import annotations

import inspect
from itertools import product

import numpy as np
import pytest
import torch
from attacking import NAMES, RANDOM, make, matrix, same, split
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from conftest import extremes
from skbgmd.corruption import (
    GRADIENT_CORRUPTIONS,
    AdditiveNoise,
    ALittleIsEnough,
    AttackContext,
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
    Sleeper,
    get_gradient_corruption,
)
from skbgmd.corruption.gradients.base import shares_numbers


@pytest.mark.parametrize("name", NAMES)
# Rows are drawn, copied and put back by the same lines for every attack.
@settings(max_examples=40)
@given(
    b=st.integers(2, 20),
    fraction=st.sampled_from([0.0, 0.1, 0.2, 0.29, 0.4, 0.49]),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_exactly_the_drawn_rows_change(name, b, fraction, seed, dtype):
    gradients = matrix(b, 17, dtype=dtype)
    before = gradients.clone()
    attack = make(name, fraction=fraction)
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
    attack, source = make(name, fraction=0.4), np.random.RandomState(0)
    rows = [tuple(attack.apply_(matrix(20), random_state=source).tolist()) for _ in range(5)]
    assert len(set(rows)) == 5
    again, source = [], np.random.RandomState(0)
    for _ in range(5):
        again.append(tuple(attack.apply_(matrix(20), random_state=source).tolist()))
    assert again == rows


@pytest.mark.parametrize("name", NAMES)
def test_a_call_changes_nothing_in_the_attack(name):
    attack = make(name, fraction=0.4, random_state=3)
    before = dict(vars(attack))
    assert same(attack(matrix()), attack(matrix()))
    assert vars(attack) == before
    assert attack.get_params() == clone(attack).get_params()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:No rule withstands")
def test_without_honest_rows(name):
    attack = make(name, fraction=1.0, random_state=0)
    gradients = matrix(5)
    # The row that is mimicked stays.
    assert len(attack.apply_(gradients)) == (4 if name == "mimic" else 5)
    if name != "non_finite":
        assert torch.isfinite(gradients).all()


@pytest.mark.parametrize("name", NAMES)
def test_omniscient_attacks_are_those_that_look_at_other_rows(name):
    attack, gradients = make(name, fraction=0.4), matrix()
    attacked, corrupt, honest = split(attack, gradients)
    other = gradients.clone()
    other[honest] = 3.0 * gradients[honest] - 1.0
    rows = split(attack, other)[0][corrupt]
    assert attack.omniscient != same(rows, attacked[corrupt])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_recorded_for_autograd(name):
    attack = make(name, fraction=0.4, random_state=0)
    leaf = matrix().requires_grad_()
    assert not attack(leaf).requires_grad
    attack.apply_(leaf)
    assert leaf.grad_fn is None


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_rows_is_hopeless(name):
    attack = make(name, fraction=0.5, random_state=0)
    for door in (attack, attack.apply_):
        with pytest.warns(UserWarning, match=r"No rule withstands fraction=0\.5") as caught:
            door(matrix())
        assert caught[0].filename == __file__


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("corrupt", [[9, 2, 5], (5, 2, 9, 9, 400), np.array([2, 5, 9]), torch.tensor([9, 5, 2])])
def test_fixed_rows_are_corrupt_in_every_call(name, corrupt):
    attack, source = make(name, fraction=0.0, corrupt=corrupt), np.random.RandomState(0)
    for _ in range(3):
        gradients = matrix()
        assert attack.apply_(gradients, random_state=source).tolist() == [2, 5, 9]
        changed = ((gradients != matrix()) | gradients.isnan()).any(dim=1)
        assert changed.nonzero().flatten().tolist() == [2, 5, 9]
    # A last batch has fewer rows.
    assert attack.apply_(matrix(7), random_state=source).tolist() == [2, 5]


@pytest.mark.parametrize("name", NAMES)
def test_fixed_workers_are_found_wherever_their_rows_are(name):
    attack = make(name, fraction=0.0, corrupt=[9, 2, 5], **({"target": 4} if name == "mimic" else {}))
    context = AttackContext(lambda matrix: matrix.mean(dim=0), 1000, lambda _: None, workers=(7, 5, 4, 9, 1, 8, 11))
    assert attack.apply_(matrix(7), random_state=0, context=context).tolist() == [1, 3]
    assert attack.absent([7, 5, 9, 4]) == [2]
    assert make(name).absent([0]) == []
    with pytest.raises(ValueError, match="workers of a context must be one for each of 8 rows; found 7"):
        attack(matrix(8), context=context)


@pytest.mark.parametrize("name", NAMES)
def test_no_fixed_rows(name):
    assert same(make(name, fraction=0.4, corrupt=[])(matrix()), matrix())


def test_half_of_the_rows_fixed_is_hopeless():
    with pytest.warns(UserWarning, match="No rule withstands 2 corrupt rows of 4: with half") as caught:
        SignFlip(corrupt=[0, 3])(matrix(4))
    assert caught[0].filename == __file__
    assert Mimic(corrupt=[0, 1, 2], target=1).apply_(matrix()).tolist() == [0, 2]


class Told(GradientCorruption):
    """Corrupt rows hold the number of the step."""

    uses_context = True

    def __init__(self, fraction=0.2, random_state=None):
        self.fraction, self.random_state = fraction, random_state

    def _replace(self, gradients, corrupt, honest, rng, context=None):
        return gradients.new_full((gradients.shape[1],), -1.0 if context is None else float(context.step))


def test_an_attack_that_asks_for_the_context_gets_it():
    attack = Told(fraction=0.4)
    for context, expected in ((None, -1.0), (AttackContext(), 0.0), (AttackContext(step=7), 7.0)):
        attacked = matrix()
        corrupt = attack.apply_(attacked, 0, context)
        assert (attacked[corrupt] == expected).all()
        assert torch.equal(attack(matrix(), 0, context), attacked)


@pytest.mark.parametrize("name", NAMES)
def test_cuda(name, cuda):
    attack, gradients = make(name, fraction=0.4, random_state=0), matrix()
    on_device = gradients.to(cuda)
    corrupt = attack.apply_(on_device)
    assert corrupt.device.type == on_device.device.type == "cuda"
    if name not in RANDOM:
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
        (
            make("searched_inner_product", objective="harm"),
            ValueError,
            "objective must be one of 'progress', 'deviation'",
        ),
        (make("searched_inner_product", aggregator="mean"), TypeError, "aggregator must be None or a function"),
        (make("searched_a_little_is_enough", weakest=0.0), ValueError, "weakest must be greater than 0"),
        (make("searched_a_little_is_enough", strongest=0.05), ValueError, "strongest must be at least 0.1"),
        (make("searched_a_little_is_enough", aggregator=None), ValueError, "aggregator must be a function.*found None"),
        (make("squatter", beta=0.0), ValueError, "beta must be greater than 0 and at most 1"),
        (make("scale_rider", scale=-1.0), ValueError, "scale must be greater than 0"),
        (make("framing", noise=-0.1), ValueError, "noise must be at least 0"),
        (make("simplex", z=0.0), ValueError, "z must be greater than 0"),
        (make("sleeper", n_honest_steps=-1), ValueError, "n_honest_steps must be at least 0"),
        (make("sleeper", attack="bit_flip"), TypeError, "attack must be None or a GradientCorruption.*'bit_flip'"),
        (make("sleeper", attack=make("label_flip")), TypeError, "acts on gradients; found LabelFlip"),
        (make("sleeper", attack=BitFlip(scale="x")), TypeError, "scale must be a number"),
        (make("memory_filler", push="x"), TypeError, "push must be a number"),
        (make("memory_filler", share=1.1), ValueError, "share must be greater than 0 and at most 1"),
        (make("constant_vote", share=0), ValueError, "share must be greater than 0 and at most 1"),
        (make("label_flip"), TypeError, "LabelFlip must act on targets"),
        (NonFinite(value="none"), ValueError, "value must be one of 'nan', 'inf'; found 'none'"),
        (BitFlip(corrupt="12"), TypeError, "corrupt must be None or a sequence of integers.*found '12'"),
        (BitFlip(corrupt=3), TypeError, "corrupt must be None or a sequence of integers"),
        (BitFlip(corrupt=[True, False]), TypeError, "corrupt must be None or a sequence of integers"),
        (BitFlip(corrupt=[0.5]), TypeError, "corrupt must be None or a sequence of integers"),
        (BitFlip(corrupt=[[1, 2]]), TypeError, "corrupt must be None or a sequence of integers"),
        (BitFlip(corrupt=[[1], [1, 2]]), TypeError, "corrupt must be None or a sequence of integers"),
        (BitFlip(corrupt=[1, -1]), ValueError, "corrupt must hold indices of at least 0; found -1"),
        (BitFlip(random_state="now"), ValueError, "random_state must be an integer from 0"),
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1), (3, 2)])
@pytest.mark.filterwarnings("ignore:No rule withstands")
def test_few_rows_and_columns(name, shape):
    for corrupt in ([0], [shape[0] - 1], range(shape[0])):
        gradients = matrix(*shape)
        attacked = make(name, corrupt=corrupt)(gradients, random_state=0)
        assert name == "non_finite" or torch.isfinite(attacked).all()
        honest = [i for i in range(shape[0]) if i not in corrupt]
        assert torch.equal(attacked[honest], gradients[honest])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite_to_begin_with(name, value):
    gradients = matrix()
    gradients[3, 2:5] = gradients[6, 0] = value
    # The attack replaces the one; the other it may know.
    attacked = make(name, corrupt=[0, 3, 8], **({"target": 1} if name == "mimic" else {}))(gradients, random_state=0)
    honest = [i for i in range(12) if i not in (0, 3, 8)]
    assert same(attacked[honest], gradients[honest])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "non_finite"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_rows_of_any_size_stay_finite(name, dtype):
    for fraction in (0.2, 0.45):
        for kind, gradients in extremes(dtype).items():
            attack = make(name, fraction=fraction)
            attacked = attack(gradients, random_state=0)
            assert attacked.dtype == dtype
            assert torch.isfinite(attacked).all(), kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deviations_of_the_largest_numbers_stay_finite(dtype):
    """Where all entries are the largest number or its opposite, means and deviations are rounded at it."""
    largest, shapes = torch.finfo(dtype).max, ((4, 2), (10, 6), (20, 7), (9, 200))
    for shape, seed, fraction in product(shapes, range(20), (0.2, 0.4)):
        signs = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sign().to(dtype)
        for name in ("min_max", "min_sum"):
            attacked = make(name, direction="std", fraction=fraction)(largest * signs, random_state=0)
            assert torch.isfinite(attacked).all(), (name, shape, seed)


@pytest.mark.parametrize(
    "name",
    [name for name, kind in GRADIENT_CORRUPTIONS.items() if kind.omniscient and name != "mimic"],
)
@pytest.mark.parametrize("size", [1e-280, 1e-20, 1e20, 1e100, 1e200, 1e300])
def test_attacks_scale_with_the_gradients(name, size):
    gradients = matrix()
    attack = make(name, fraction=0.4)
    expected = attack(gradients, random_state=0)
    torch.testing.assert_close(attack(gradients * size, random_state=0) / size, expected, rtol=1e-9, atol=1e-9)
    if 1e-30 < size < 1e30 and name not in RANDOM:
        single = attack((gradients * size).float(), random_state=0).double() / size
        torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-4)


class Replaced(GradientCorruption):
    """Rows that a test gives."""

    def __init__(self, replacement=None, fraction=0.4, random_state=0):
        self.replacement, self.fraction, self.random_state = replacement, fraction, random_state

    def _replace(self, gradients, corrupt, honest, rng):
        return self.replacement


@pytest.mark.parametrize("shape", [(2,), (4, 2)])
def test_replacements_are_converted_and_stay_finite(shape):
    rows = torch.full(shape, 1e300, dtype=torch.float64)
    for attack in (Replaced(rows), Sleeper(attack=Replaced(rows), fraction=0.4, random_state=0)):
        attacked = attack(torch.zeros(10, 2))
        assert attacked.dtype == torch.float32
        assert (attacked == torch.finfo(torch.float32).max).all(dim=1).sum() == 4


@pytest.mark.parametrize(
    ("replacement", "found"),
    [
        (torch.zeros(3), r"Tensor of \(3,\)"),
        (torch.zeros(()), r"Tensor of \(\)"),
        (np.zeros(2), "ndarray of"),
        (0.0, "float"),
    ],
)
def test_replacements_must_be_rows(replacement, found):
    with pytest.raises(
        TypeError, match=rf"Replaced\._replace must return a tensor of shape \(2,\) or \(4, 2\); found {found}"
    ):
        Replaced(replacement)(torch.zeros(10, 2))


def test_rows_that_share_memory_are_not_overwritten():
    row = torch.ones(3)
    shared = [row.expand(4, 3), row[:, None].expand(3, 4), torch.arange(6.0).unfold(0, 3, 1)]
    for gradients in shared:
        with pytest.raises(ValueError, match=r"gradients must have numbers of their own in each row.*share memory"):
            SignFlip(fraction=0.4).apply_(gradients, 0)
        assert (SignFlip(fraction=0.4)(gradients, 0) < 0.0).any(dim=1).sum() == int(0.4 * len(gradients))
    plain = [torch.ones(4, 3), torch.ones(1, 3), row[None].expand(1, 3), torch.ones(3, 1), torch.ones(6, 8)[::2, ::2]]
    assert not any(shares_numbers(matrix) or shares_numbers(matrix.T) for matrix in plain)
