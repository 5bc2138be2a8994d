"""The tape: gradients of single samples by factors equal those that autograd gives one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from single import check, close, ghost, loss, made, reference
from torch import nn

from skbgmd import RobustNeuralNetClassifier
from skbgmd._utils import limits
from skbgmd.aggregators import BlockGeometricMedian
from skbgmd.ghost import DenseFactor, GhostError, GhostRows, GradientRecorder, register_rule, registry
from skbgmd.ghost.factors import OuterProductFactor
from skbgmd.rows import DenseRows
from skbgmd.rows.blocks import CoordinateBlock, ParameterBlock


@pytest.fixture(autouse=True)
def _initialisation_from_a_fork() -> Iterator[None]:
    """Layers are initialised from torch's global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        yield


DTYPES = st.sampled_from([torch.float32, torch.float64])


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(3, 6),
    positions=st.lists(st.integers(1, 4), max_size=2),
    p=st.integers(1, 7),
    q=st.integers(1, 7),
    bias=st.booleans(),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_linear(n: int, positions: list[int], p: int, q: int, bias: bool, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    check(nn.Linear(p, q, bias=bias, dtype=dtype), made((n, *positions, p), dtype, seed))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(deadline=None, max_examples=80)
@given(data=st.data(), axes=st.integers(1, 3), transposed=st.booleans(), dtype=DTYPES, seed=st.integers(0, 99))
def test_convolutions(data: Any, axes: int, transposed: bool, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    each = st.tuples(*[st.integers(1, 3)] * axes)
    kernel, stride, dilation = data.draw(each), data.draw(each), data.draw(st.tuples(*[st.integers(1, 2)] * axes))
    groups = data.draw(st.integers(1, 2))
    channels = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 2))
    padding = data.draw(st.tuples(*[st.integers(0, 2)] * axes))
    size = tuple(data.draw(st.integers(5, 6)) for _ in range(axes))
    x = made((3, channels[0], *size), dtype, seed)
    common = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": data.draw(st.booleans()),
        "dtype": dtype,
    }
    layer: nn.Module
    if transposed:
        extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
        kind: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
        common["padding"] = tuple(min(p, (k - 1) * d) for p, k, d in zip(padding, kernel, dilation, strict=True))
        layer = kind(*channels, output_padding=extra, **common)
    else:
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        mode = data.draw(st.sampled_from(["zeros", "circular", "same"]))
        if mode == "same":
            common |= {"padding": "same", "stride": 1}
        else:
            common["padding_mode"] = mode
        layer = kind(*channels, **common)
    check(layer, x)


@settings(deadline=None, max_examples=30)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3), dtype=DTYPES, seed=st.integers(0, 99))
def test_normalisations(shape: list[int], dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    x = made((4, 3, 4, *shape), dtype, seed)
    norm = nn.LayerNorm(tuple(shape), dtype=dtype)
    group = nn.GroupNorm(1, 3, dtype=dtype)
    for layer in (norm, group):
        nn.init.normal_(layer.weight)
        check(layer, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_layers(dtype: torch.dtype) -> None:
    x = made((5, 3, 6), dtype, 0)
    check(nn.InstanceNorm1d(3, affine=True, dtype=dtype), x)
    check(nn.InstanceNorm2d(3, affine=True, dtype=dtype), x[:, :, :, None].expand(-1, -1, -1, 4).contiguous().cumsum(3))
    check(nn.PReLU(dtype=dtype), x)
    check(nn.PReLU(3, dtype=dtype), x)
    check(nn.PReLU(3, dtype=dtype), x[:, :, 0])


@settings(deadline=None, max_examples=30)
@given(
    shape=st.lists(st.integers(1, 5), max_size=2),
    padding=st.booleans(),
    words=st.integers(2, 9),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_embedding(shape: list[int], padding: bool, words: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Embedding(words, 3, padding_idx=0 if padding else None, dtype=dtype)
    check(layer, torch.randint(words, (4, *shape)))


class Twice(nn.Module):
    """A layer used twice."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(torch.tanh(self.layer(x)))
        return result


class Tied(nn.Module):
    """An embedding whose table is the last layer's matrix, too."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 4, dtype=dtype)
        self.last = nn.Linear(4, 7, dtype=dtype)
        self.last.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.tanh(self.table(x)))
        return result


class Masked(nn.Module):
    """Attention between two sequences."""

    def __init__(self, dtype: torch.dtype, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, dtype=dtype, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.attention(x, x[:, :2].cos(), x[:, :2].cos())[0]
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shared_parameters(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    check(Twice(dtype), made((5, 4), dtype, 1))
    check(Twice(dtype), made((5, 3, 4), dtype, 1))
    check(Tied(dtype), torch.randint(7, (5,)))
    check(Tied(dtype), torch.randint(7, (5, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transformers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(6, 2, 10, dropout=0.0, batch_first=True, dtype=dtype)
    check(encoder, made((5, 4, 6), dtype, 1), 2e-5 if dtype == torch.float32 else None)
    check(nn.TransformerEncoder(encoder, 2, enable_nested_tensor=False), made((5, 4, 6), dtype, 1), 1e-4)
    check(Masked(dtype), made((5, 4, 6), dtype, 2))
    check(Masked(dtype, kdim=6, vdim=6), made((5, 4, 6), dtype, 2))


class Scale(nn.Module):
    """A layer that there is no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((3,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def test_unknown_layers_by_torch_func_and_by_a_rule_of_ones_own() -> None:
    x = made((5, 3), torch.float32, 0)
    module = nn.Sequential(nn.Linear(3, 3), Scale(), nn.ReLU(inplace=True))
    check(module, x)
    used = []

    class Ruled(Scale):
        pass

    @register_rule(Ruled)
    def rule(layer: Any, inputs: tuple[torch.Tensor, ...], gradient: torch.Tensor) -> Any:
        used.append(layer)
        return {"factor": DenseFactor(inputs[0] * gradient)}

    check(nn.Sequential(nn.Linear(3, 3), Ruled()), x)
    assert used


def test_an_output_without_gradient_before_the_one_with() -> None:
    class Two(Scale):
        def forward(self, x: torch.Tensor) -> Any:
            return x.detach().argmax(dim=1), self.factor * x

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.two(x)[1]
            return result

    check(Second(), made((5, 3), torch.float32, 0))


def test_unknown_layers_that_torch_func_cannot_do_are_refused_by_name() -> None:
    class PreAggregation(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * (x - x.mean(dim=0))

    class Drawing(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * torch.nn.functional.dropout(x, 0.5)

    class Deciding(Scale):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor * x if x.detach().sum() > 0.0 else self.factor * -x

    x = made((5, 3), torch.float32, 0)
    with torch.random.fork_rng(devices=[]):
        for kind, reason in (
            (PreAggregation, "depends on the others"),
            (Drawing, "torch.func can't"),
            (Deciding, "torch.func"),
        ):
            with pytest.raises(GhostError, match=f"'1' gives no gradients of single samples: .*{reason}"):
                ghost(nn.Sequential(nn.Linear(3, 3), kind()), x, loss)


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module[0].weight.requires_grad_(False)
    module[2].bias.requires_grad_(False)
    check(module, made((5, 3), torch.float32, 0))


def test_batch_norm_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(GhostError, match=r"'1', BatchNorm1d.*GroupNorm"):
        ghost(module, made((5, 3), torch.float32, 0), loss)
    check(module.eval(), made((5, 3), torch.float32, 0))


def test_stray_parameters_are_refused_by_name() -> None:
    class Stray(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x) @ self.layer.weight
            return result

    with pytest.raises(GhostError, match=r"found 'layer.weight', which something else uses"):
        ghost(Stray(), made((5, 3), torch.float32, 0), loss)


def test_inputs_changed_in_place_are_refused() -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            out: torch.Tensor = self.layer(x)
            x.zero_()
            return out

    with pytest.raises(GhostError, match=r"into the layer 'layer' must not be changed in place"):
        ghost(Changed(), made((5, 3), torch.float32, 0), lambda out: out.sin().sum(dim=1))


def test_samples_along_another_axis_are_refused() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(x.flatten(0, 1)).view(x.shape)
            return result

    with pytest.raises(GhostError, match=r"found 5 samples and, at the layer 'layer', shape \(20, 3\)"):
        ghost(Flat(), made((5, 4, 3), torch.float32, 0), loss)


class Related(nn.Module):
    """A layer without a rule, one of whose outputs is made of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(3, 3, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        one = (x @ self.matrix).tanh()
        return {"one": one, "others": (one.exp(), one)}


def test_outputs_that_are_made_of_one_another() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Related()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found = self.layer(x)
            return torch.cat([found["one"], *found["others"]], dim=1)

    torch.manual_seed(0)
    check(Both(), made((5, 3), torch.float64, 0))


class Summed(nn.Module):
    """Two layers whose outputs are added have one gradient in memory, and are no weights and bias of one layer."""

    def __init__(self, second: nn.Module, *, apart: bool) -> None:
        super().__init__()
        self.first = nn.Linear(16, 6, bias=False)
        if apart:
            self.unused = nn.Linear(5, 6)
        self.second, self.last = second, nn.Linear(6, 3)
        second.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = x[:, :6].view(-1, 2, 3) if isinstance(self.second, nn.LayerNorm) else x.flip(1)
        result: torch.Tensor = self.last((self.first(x) + self.second(other).flatten(1)).tanh())
        return result


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("second", [lambda: nn.Linear(16, 6), lambda: nn.LayerNorm((2, 3))])
def test_gradients_of_two_layers_in_one_place_in_memory(second: Any, apart: bool) -> None:
    torch.manual_seed(0)
    check(Summed(second(), apart=apart), made((5, 16), torch.float32, 0))


def test_outputs_that_are_changed_in_place_afterwards() -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out, last = self.layer(x)
            out += 0.3 * x.sum(dim=2, keepdim=True)
            result: torch.Tensor = out.flatten(1) * last[0].repeat(1, x.shape[1])
            return result

    torch.manual_seed(0)
    check(Changing(), made((5, 4, 3), torch.float32, 0), 3e-5)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_layers_without_inputs_or_outputs() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing_in, self.nothing_out, self.last = nn.Linear(0, 4), nn.Linear(3, 0), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.nothing_in(self.nothing_out(x)).tanh() + x[:, :1])
            return result

    torch.manual_seed(0)
    module, x = Empty(), made((5, 3), torch.float32, 0)
    rows, exact = ghost(module, x, loss), reference(module, x, loss).double()
    np.testing.assert_allclose(rows.gram().products, exact @ exact.T, atol=1e-5)
    np.testing.assert_allclose(rows.weighted_sum(np.full(5, 0.2)), exact.mean(dim=0), atol=1e-6)


class Overridden(nn.GRU):
    """A recurrent layer for which there is no rule: it may do anything."""

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        return super().forward(x, hx)


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_of_ones_own_by_torch_func(batch_first: bool) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = Overridden(3, 4, batch_first=batch_first)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.recurrent(x if batch_first else x.transpose(0, 1))[1][-1]
            return result

    torch.manual_seed(0)
    check(Last(), made((5, 4, 3), torch.float32, 0))
    layer = Overridden(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    check(nn.Sequential(nn.Linear(3, 3), layer), made((5, 4, 3), torch.float32, 0))


def test_what_would_draw_other_numbers_is_refused() -> None:
    with pytest.raises(GhostError, match="draws other numbers"):
        ghost(nn.GRU(3, 3, num_layers=2, dropout=0.5, batch_first=True), made((5, 4, 3), torch.float32, 0), loss)
    with pytest.raises(GhostError, match="draws other numbers"):
        ghost(Overridden(3, 3, num_layers=2, dropout=0.5, batch_first=True), made((5, 4, 3), torch.float32, 0), loss)


def test_hooks_are_gone_afterwards_even_after_an_error() -> None:
    module = nn.TransformerEncoderLayer(4, 2, batch_first=True)
    with (
        pytest.raises(AssertionError, match="embedding dimension"),
        GradientRecorder(module, list(module.parameters())),
    ):
        module(torch.zeros(2, 3, 5))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
    with torch.overrides.TorchFunctionMode():  # one that was left entered would be left below this one
        pass
    assert torch.overrides._get_current_function_mode() is None


def test_no_gradient_of_a_parameter_is_computed() -> None:
    module = nn.Linear(3, 3)
    seen = []
    module.weight.register_hook(seen.append)
    ghost(module, made((5, 3), torch.float32, 0), loss)
    assert not seen
    assert module.weight.grad is None


def test_autocast() -> None:
    # Of drawn networks some have gradients that all but cancel, with few of the digits that half precision has.
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x = made((6, 8), torch.float32, 0)
    exact = reference(module, x, loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = ghost(module, x, lambda out: loss(out.float()))
    assert rows.dtype == torch.float32
    weights = np.full(6, 1 / 6)
    assert float((rows.weighted_sum(weights) - exact.mean(dim=0)).norm()) < 0.02 * float(exact.mean(dim=0).norm())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda() -> None:
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).cuda()
    x = made((6, 8), torch.float32, 0).cuda()
    rows = ghost(module, x, lambda out: out.square().sum(dim=1))
    exact = reference(module, x, lambda out: out.square().sum(dim=1)).double()
    assert rows.weighted_sum(np.full(6, 1 / 6)).device.type == "cuda"
    assert np.abs(rows.gram().products - (exact @ exact.T).cpu().numpy()).max() < 1e-5 * float(exact.square().sum())


def test_rows_whose_squares_have_no_number_in_float32_are_finite() -> None:
    x, left = made((5, 4), torch.float32, 0), made((5, 3), torch.float32, 1)
    factor = OuterProductFactor(1e13 * left[:, None], 1e13 * x[:, None])
    rows = GhostRows([(0, factor)], 5, 12)
    gram = rows.gram()
    assert gram.finite.all()
    exact = (1e26 * left.double()[:, :, None] * x.double()[:, None]).flatten(1).numpy()
    np.testing.assert_allclose(gram.unit**2 * gram.products, exact @ exact.T, rtol=1e-6, atol=1e44)


def test_runs_of_wide_units_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LONG_RUN_ELEMENTS", 3000)
    values = made((5, 9, 300), torch.float32, 0)
    parts = DenseFactor(values).units(np.array([0, 1, 2, 5, 6]))
    assert [part.n_units for part in parts] == [3, 2]
    assert all(part.values.untyped_storage().data_ptr() == values.untyped_storage().data_ptr() for part in parts)
    (narrow,) = DenseFactor(values[:, :, :2]).units(np.array([0, 2, 5]))
    assert torch.equal(narrow.explicit(slice(0, 3)), values[:, [0, 2, 5], :2].flatten(1))


def test_sums_apart_leave_out_what_is_not_finite() -> None:
    left, right = made((4, 1, 3), torch.float32, 0), made((4, 1, 2), torch.float32, 1)
    left[2] = torch.nan
    rows = GhostRows([(0, OuterProductFactor(left, right))], 4, 6)
    units = ParameterBlock.of([torch.zeros(3, 2)])
    on_block, elsewhere = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.2, 0.3, 0.0, 0.5])
    written = torch.einsum("iu,iw->iuw", left[:, 0], right[:, 0]).flatten(1).nan_to_num(0.0).double()
    for block in (replace(units, chosen=np.array([1])), CoordinateBlock(torch.tensor([2, 3]), 1, 6)):
        expected = torch.as_tensor(elsewhere) @ written
        expected[2:4] = (torch.as_tensor(on_block) @ written)[2:4]
        close(rows.weighted_sum_by_block(on_block, elsewhere, block), expected, 1e-6, 1.0)


class _Mixed(nn.Module):
    """A layer in single precision, one in double, and one that isn't used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused, self.last = nn.Linear(8, 6), nn.Linear(3, 4), nn.Linear(6, 5).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(self.first(x).double())
        return result


@pytest.mark.parametrize("selection", ["top", "uniform"])
@pytest.mark.parametrize("complement", ["weighted", "zero", "memory"])
def test_blocks_of_units_with_layers_of_two_precisions_and_one_unused(selection: str, complement: str) -> None:
    module, x = _Mixed(), made((16, 8), torch.float32, 0)
    parameters = list(module.parameters())
    with GradientRecorder(module, parameters) as tape:
        losses = loss(module(x))
    units = ParameterBlock.of(parameters)
    rows = GhostRows(tape.factors(losses), 16, units.total, units=units)
    dense = DenseRows(rows.chunk(slice(0, units.total)), units=units)
    rule = BlockGeometricMedian(0.4, selection=selection, block="unit", complement=complement, random_state=0)
    (found, after), (expected, exact) = rule(rows), rule(dense)
    np.testing.assert_array_equal(found.block, expected.block)
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
    if complement == "memory":
        np.testing.assert_allclose(after.memory, exact.memory, atol=1e-6)
        assert after.memory.untyped_storage().size() == 8 * units.total


@pytest.mark.parametrize("block", ["coordinate", "unit"])
def test_scores_of_rows_whose_squares_have_no_number_in_float32(block: str) -> None:
    X = made((9, 50, 40), torch.float32, 0)
    X[6:] *= 1e30
    units = ParameterBlock.of([torch.zeros(50, 40)])
    rows = GhostRows([(0, DenseFactor(X))], 9, 2000, units=units)
    rule = BlockGeometricMedian(0.1, block=block)
    found, expected = rule(rows)[0], rule(DenseRows(X.flatten(1), units=units))[0]
    np.testing.assert_array_equal(found.block, expected.block)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-4)


def test_many_small_gradients_are_joined_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [made((6, width), torch.float64, width) for width in (3, 5, 2, 7, 4)]
    starts = np.cumsum([0, 3, 5, 2, 7]).tolist()
    rows = GhostRows([(start, DenseFactor(part)) for start, part in zip(starts, values, strict=True)], 6, 21)
    whole = torch.cat(values, dim=1)
    for at_once in (1, 2, 5):
        monkeypatch.setattr(limits, "WRITTEN_ELEMENTS", at_once * 6 * limits.ONE_PRODUCT_COLUMNS)
        assert len(list(rows._gram_parts(torch.float64))) == -(-5 // at_once)
        np.testing.assert_allclose(rows._gram_in(torch.float64).products, (whole @ whole.T).numpy(), atol=1e-12)


class Shifted(nn.Module):
    """A layer of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


@pytest.fixture
def own_rules() -> Iterator[None]:
    with patch.dict(registry.RULES):
        yield


@pytest.mark.usefixtures("own_rules")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda gradient: None, "the layer '0', Shifted, must give a dict of factors.*found NoneType"),
        (lambda gradient: {"shift": gradient}, "must give factors, such as DenseFactor or OuterProductFactor"),
        (
            lambda gradient: {"shift": [DenseFactor(gradient), gradient]},
            "must give factors, such as DenseFactor or OuterProductFactor",
        ),
        (lambda gradient: {"shift": DenseFactor(gradient), "other": DenseFactor(gradient)}, r"found \['other'\]"),
        (
            lambda gradient: {"shift": DenseFactor(gradient[:3])},
            "must give 5 rows of 4 numbers for 'shift'; found 3 of 4",
        ),
        (lambda gradient: {"shift": DenseFactor(gradient[:, :3])}, "must give 5 rows of 4 numbers.*found 5 of 3"),
    ],
)
def test_answers_of_registered_rules_are_checked(answer: Any, message: str) -> None:
    register_rule(Shifted)(lambda layer, inputs, gradient: answer(gradient))
    module = nn.Sequential(Shifted())
    with GradientRecorder(module, list(module.parameters())) as tape:
        losses = module(torch.ones(5, 4)).square().sum(dim=1)
    with pytest.raises(TypeError, match=message):
        tape.factors(losses)


def test_rules_are_for_modules() -> None:
    for layers in ((), (3,), (int,)):
        with pytest.raises(TypeError, match="layers must be classes of modules"):
            register_rule(*layers)


@pytest.mark.usefixtures("own_rules")
def test_a_wrong_rule_is_told_of() -> None:
    register_rule(Shifted)(lambda layer, inputs, gradient: {"shift": DenseFactor(2.0 * gradient)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(Shifted(), nn.Linear(4, 2))
        X, y = torch.randn(20, 4), torch.arange(20) % 2
    settings: dict[str, Any] = {"criterion": nn.CrossEntropyLoss, "group_size": 1, "verbose": 0, "train_split": None}
    net = RobustNeuralNetClassifier(module, max_epochs=2, **settings)
    with torch.random.fork_rng(devices=[]), pytest.warns(UserWarning, match="A rule was registered, and yet.*is wrong"):
        net.fit(X, y)
    with torch.random.fork_rng(devices=[]), pytest.raises(GhostError, match="or a registered rule is wrong"):
        RobustNeuralNetClassifier(module, gradients="one_pass", **settings).fit(X, y)


class Container(nn.Module):
    """A layer of a user's own with another in it, and a parameter that it doesn't have."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.inner = nn.Parameter(torch.zeros(4)), nn.Linear(4, 4, bias=False)
        self.register_parameter("missing", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x) + self.shift
        return result


@pytest.mark.usefixtures("own_rules")
def test_rules_of_layers_with_layers_in_them() -> None:
    def rule(layer: nn.Module, inputs: Any, gradient: Any) -> Any:
        weight = OuterProductFactor(gradient[:, None], inputs[0][:, None])
        return {"shift": DenseFactor(gradient), "inner.weight": weight, "missing": DenseFactor(gradient)}

    rule.__module__ = None  # type: ignore[assignment]
    register_rule(Container)(rule)
    check(Container(), torch.randn(5, 4))
