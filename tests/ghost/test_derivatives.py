"""Derivatives of layers against autograd, and their registry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skbgmd.ghost import register_derivative
from skbgmd.ghost.derivatives import DERIVATIVES, derivative_of

VECTORS, IMAGES, SEQUENCES = (5, 6), (5, 6, 8, 7), (5, 4, 6)
#: A layer of each registered kind, in several settings, and the shapes of inputs that it takes.
LAYERS = {
    "linear": (lambda: nn.Linear(6, 3), [VECTORS, SEQUENCES]),
    "linear without bias": (lambda: nn.Linear(6, 3, bias=False), [VECTORS]),
    "relu": (lambda: nn.ReLU(inplace=True), [VECTORS, IMAGES]),
    "prelu": (lambda: nn.PReLU(), [VECTORS, IMAGES]),
    "prelu by channel": (lambda: nn.PReLU(6), [VECTORS, IMAGES]),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), [VECTORS]),
    "elu": (lambda: nn.ELU(1.5), [VECTORS]),
    "gelu": (lambda: nn.GELU(), [VECTORS]),
    "gelu by tanh": (lambda: nn.GELU("tanh"), [VECTORS]),
    "silu": (lambda: nn.SiLU(), [VECTORS]),
    "tanh": (lambda: nn.Tanh(), [VECTORS]),
    "sigmoid": (lambda: nn.Sigmoid(), [VECTORS]),
    "softplus": (lambda: nn.Softplus(2.0, 1.0), [VECTORS]),
    "hardtanh": (lambda: nn.Hardtanh(-0.5, 0.7), [VECTORS]),
    "relu6": (lambda: nn.ReLU6(), [VECTORS]),
    "softmax": (lambda: nn.Softmax(dim=1), [VECTORS, SEQUENCES]),
    "softmax of the last axis": (lambda: nn.Softmax(dim=-1), [SEQUENCES]),
    "log softmax": (lambda: nn.LogSoftmax(dim=1), [VECTORS, SEQUENCES]),
    "dropout": (lambda: nn.Dropout(0.4), [VECTORS]),
    "dropout in place": (lambda: nn.Dropout(0.4, inplace=True), [VECTORS]),
    "dropout of channels": (lambda: nn.Dropout2d(0.4), [IMAGES]),
    "identity": (lambda: nn.Identity(), [VECTORS]),
    "flatten": (lambda: nn.Flatten(), [IMAGES, SEQUENCES]),
    "flatten from the second": (lambda: nn.Flatten(2), [IMAGES]),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), [VECTORS]),
    "largest": (lambda: nn.MaxPool2d(2), [IMAGES]),
    "largest, overlapping": (lambda: nn.MaxPool2d((3, 2), stride=1, padding=1, ceil_mode=True), [IMAGES]),
    "mean": (lambda: nn.AvgPool2d(2), [IMAGES]),
    "mean, overlapping": (lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), [IMAGES]),
    "mean to a size": (lambda: nn.AdaptiveAvgPool2d((3, 2)), [IMAGES]),
    "mean of all": (lambda: nn.AdaptiveAvgPool2d(1), [IMAGES]),
    "convolution": (lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1), [IMAGES]),
    "convolution in groups": (lambda: nn.Conv2d(6, 4, 3, groups=2, dilation=2, bias=False), [IMAGES]),
    "convolution along a line": (lambda: nn.Conv1d(4, 3, 2), [SEQUENCES]),
    "layer norm": (lambda: nn.LayerNorm(6), [VECTORS, SEQUENCES]),
    "layer norm without weights": (lambda: nn.LayerNorm(6, elementwise_affine=False), [VECTORS]),
}


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, (_, shapes) in LAYERS.items() for shape in shapes])
@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=6)
@given(seed=st.integers(0, 2**16))
def test_output_and_way_back_are_those_of_autograd(name, shape, training, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = LAYERS[name][0]().double().train(training)
        x = torch.randn(shape, dtype=torch.float64)
        given_x, before = x.clone().requires_grad_(), x.clone()
        torch.manual_seed(seed)
        # A copy, for some layers change what they are given.
        expected = layer(given_x * 1.0)
        drawn = torch.rand(1)
        gradient = torch.randn_like(expected)
        (back,) = torch.autograd.grad(expected, given_x, gradient)
        torch.manual_seed(seed)
        with torch.no_grad():
            output, way = derivative_of(layer)(layer, x)
            assert torch.rand(1) == drawn  # as many random numbers as the layer draws
            torch.testing.assert_close(output, expected.detach())
            torch.testing.assert_close(way(gradient), back)
        torch.testing.assert_close(x, before, rtol=0.0, atol=0.0)


@pytest.mark.usefixtures("forked")
def test_each_registered_layer_is_tested():
    tested = {type(make()) for make, _ in LAYERS.values()}
    # Of one implementation are the same functions.
    functions = {DERIVATIVES[kind] for kind in tested if kind in DERIVATIVES}
    assert {function for function in DERIVATIVES.values() if function.__module__.startswith("skbgmd.")} <= functions


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Softmax(dim=0), VECTORS),
        (lambda: nn.LogSoftmax(dim=None), VECTORS),
        (lambda: nn.Flatten(0), VECTORS),
        (lambda: nn.Unflatten(0, (5, 1)), VECTORS),
        (lambda: nn.MaxPool2d(2), IMAGES[1:]),
        (lambda: nn.MaxPool2d(2, return_indices=True), IMAGES),
        (lambda: nn.AvgPool2d(2), IMAGES[1:]),
        (lambda: nn.AdaptiveAvgPool2d(2), IMAGES[1:]),
        (lambda: nn.Conv2d(6, 3, 3, padding="same"), IMAGES),
        (lambda: nn.Conv2d(6, 3, 3, padding=1, padding_mode="reflect"), IMAGES),
        (lambda: nn.LayerNorm(VECTORS), VECTORS),
    ],
)
def test_layers_that_mix_samples_or_are_not_known_are_refused(layer, shape):
    layer = layer()
    with pytest.raises(NotImplementedError):
        derivative_of(layer)(layer, torch.randn(shape))


@pytest.mark.usefixtures("forked")
def test_a_changed_layer_has_none():
    class Other(nn.ReLU):
        def forward(self, x):
            return super().forward(x) + 1.0

    class Same(nn.ReLU):
        pass

    changed = nn.ReLU()
    changed.forward = lambda x: x
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    assert derivative_of(Same()) is derivative_of(nn.ReLU())
    for layer in (Other(), changed, parametrized, nn.Bilinear(2, 2, 2)):
        assert derivative_of(layer) is None


def test_layers_of_a_user(monkeypatch):
    monkeypatch.setattr("skbgmd.ghost.derivatives.DERIVATIVES", dict(DERIVATIVES))

    class Own(nn.Module):
        def forward(self, x):
            return 2.0 * x

    @register_derivative(Own)
    def own(layer, x):
        return 2.0 * x, lambda gradient: 2.0 * gradient

    assert derivative_of(Own()) is own
    for wrong in ((), (3,), (Own(),)):
        with pytest.raises(TypeError, match="layers must be classes of modules, one at least; found"):
            register_derivative(*wrong)
