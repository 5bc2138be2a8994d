"""Chains of layers: the same factors as the recorder's, and what is no chain."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skbgmd.ghost import Chain, GhostRows, GradientRecorder, register_derivative, register_rule
from skbgmd.ghost.derivatives import DERIVATIVES
from skbgmd.ghost.factors import DenseFactor
from skbgmd.ghost.registry import RULES
from skbgmd.training.networks import MLP, LeNet

pytestmark = pytest.mark.usefixtures("forked")


def small_images(dropout=0.3):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.LayerNorm(36),
        nn.Linear(36, 5),
    )


MODULES = {
    "perceptron": (lambda: MLP(6, 4, (7, 5)), (6,)),
    "one layer": (lambda: nn.Linear(6, 3), (6,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 3, bias=False), nn.GELU(), nn.Linear(3, 2)), (6,)),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.SiLU()), nn.Identity(), nn.Sequential(nn.Linear(5, 3))),
        (6,),
    ),
    "activations first": (lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3), nn.LogSoftmax(1)), (6,)),
    "learned slopes": (lambda: nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 2), nn.Softmax(-1)), (6,)),
    "sequences": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.LayerNorm(5), nn.Flatten(), nn.Linear(20, 3)),
        (4, 6),
    ),
    "images": (small_images, (2, 8, 8)),
}


def recorded(module, parameters, x, weight):
    with GradientRecorder(module, parameters) as recorder:
        output = module(x)
    return recorder.factors((output * weight).flatten(1).sum(dim=1)), output


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), n=st.integers(1, 6))
def test_factors_are_those_of_the_recorder(name, training, seed, n):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make, shape = MODULES[name]
        module = make().double().train(training)
        parameters = list(module.parameters())
        x = torch.randn(n, *shape, dtype=torch.float64)
        torch.manual_seed(seed)
        weight = torch.randn_like(module(x)).detach()
        torch.manual_seed(seed)
        factors, output = recorded(module, parameters, x, weight)
        chain = Chain.of(module, parameters)
        assert chain.takes(x)
        torch.manual_seed(seed)
        went = chain.forward(x)
        torch.testing.assert_close(went.output, output.detach())
        assert not went.output.requires_grad
        total = sum(parameter.numel() for parameter in parameters)
        expected = GhostRows(factors, n, total)
        rows = GhostRows(chain.factors(went, weight), n, total)
        everything = slice(0, total)
        torch.testing.assert_close(rows.chunk(everything), expected.chunk(everything))
        torch.testing.assert_close(torch.from_numpy(rows.norms()), torch.from_numpy(expected.norms()))
        assert all(parameter.grad is None for parameter in parameters)


def test_only_some_parameters_are_wanted(rng):
    module = MLP(4, 3, (5,))
    x = torch.randn(6, 4)
    for wanted in ([module[0].weight], [module[2].bias], [module[2].weight, module[0].bias]):
        factors, output = recorded(module, wanted, x, 1.0)
        chain = Chain.of(module, wanted)
        total = sum(parameter.numel() for parameter in wanted)
        rows = GhostRows(chain.factors(chain.forward(x), torch.ones_like(output)), 6, total)
        torch.testing.assert_close(rows.chunk(slice(0, total)), GhostRows(factors, 6, total).chunk(slice(0, total)))


class Called(nn.Linear):
    def __call__(self, x):
        return 2.0 * super().__call__(x)


class CalledSequence(nn.Sequential):
    def __call__(self, x):
        return 2.0 * super().__call__(x)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


def shared():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def tied():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, second)


def overridden():
    class Own(nn.Sequential):
        def forward(self, x):
            return super().forward(x).flip(0)

    return Own(nn.Linear(4, 4))


def changed():
    module = MLP(4, 3)
    module.forward = lambda x: x
    return module


def hooked(name):
    def make():
        module = MLP(4, 3)
        getattr(module[0], name)(lambda *_: None)
        return module

    return make


@pytest.mark.parametrize(
    "make",
    [
        Branch,
        shared,
        tied,
        lambda: nn.Sequential(Called(4, 4), nn.ReLU()),
        lambda: CalledSequence(nn.Linear(4, 4)),
        overridden,
        changed,
        hooked("register_forward_hook"),
        hooked("register_forward_pre_hook"),
        hooked("register_full_backward_hook"),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)),
        lambda: nn.Sequential(nn.Bilinear(4, 4, 4)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).double()),
        lambda: MLP(4, 3).half(),
        lambda: nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_what_is_no_chain(make):
    module = make()
    assert Chain.of(module, list(module.parameters())) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_compiled_layers_are_in_no_chain():
    for layer in (nn.ReLU(), nn.Linear(4, 4)):
        module = nn.Sequential(nn.Linear(4, 4), torch.jit.script(layer))
        assert Chain.of(module, list(module.parameters())) is None


def test_parameters_elsewhere_are_in_no_chain():
    module = MLP(4, 3)
    assert Chain.of(module, [*module.parameters(), nn.Parameter(torch.zeros(2))]) is None
    assert Chain.of(nn.Sequential(nn.ReLU()), []) is None
    # One is in two layers, and another in none.
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    parameters = list(module.parameters())
    module[1].weight = module[0].weight
    assert Chain.of(module, parameters) is None


def test_a_parameter_of_two_layers_that_is_not_wanted_is_no_obstacle():
    module = tied()
    assert Chain.of(module, [module[0].bias, module[1].bias]) is not None


def test_global_hooks_are_seen():
    module = MLP(4, 3)
    chain = Chain.of(module, list(module.parameters()))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not chain.is_as_it_was
        assert Chain.of(module, list(module.parameters())) is None
    finally:
        handle.remove()
    assert chain.is_as_it_was


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module[0].register_forward_hook(lambda *_: None),
        lambda module: module.append(nn.ReLU()),
        lambda module: setattr(module, "forward", lambda x: x),
        lambda module: setattr(module[0], "bias", None),
        lambda module: setattr(module[2], "weight", nn.Parameter(torch.zeros(3, 100))),
        lambda module: nn.utils.parametrizations.weight_norm(module[0]),
        lambda module: module.__setitem__(1, nn.Tanh()),
    ],
)
def test_a_change_is_seen(change):
    module = MLP(4, 3)
    chain = Chain.of(module, list(module.parameters()))
    module.eval()
    assert chain.is_as_it_was
    change(module)
    assert not chain.is_as_it_was


def test_another_rule_or_derivative_is_seen(monkeypatch):
    monkeypatch.setattr("skbgmd.ghost.registry.RULES", RULES)
    rules, derivatives = dict(RULES), dict(DERIVATIVES)
    module = MLP(4, 3)
    chain = Chain.of(module, list(module.parameters()))
    try:
        register_derivative(nn.ReLU)(lambda layer, x: (x, lambda gradient: gradient))
        assert not chain.is_as_it_was
        again = Chain.of(module, list(module.parameters()))
        register_rule(nn.Linear)(lambda layer, inputs, gradient: {})
        assert not again.is_as_it_was
    finally:
        RULES.update(rules)
        DERIVATIVES.update(derivatives)
    assert chain.is_as_it_was


def test_inputs_that_are_not_taken():
    module = MLP(4, 3)
    chain = Chain.of(module, list(module.parameters()))
    x = torch.zeros(2, 4)
    assert chain.takes(x)
    assert not chain.takes(x.double())
    assert not chain.takes(x[0])
    assert not chain.takes(x.requires_grad_())
    assert not chain.takes(nn.Parameter(x))
    assert not chain.takes([x])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not chain.takes(x.detach())


def test_a_copy_is_another_module():
    module = LeNet()
    chain = Chain.of(module, list(module.parameters()))
    assert chain is not None
    twin = copy.deepcopy(module)
    assert Chain.of(twin, list(module.parameters())) is None


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return self.scale * x


def scaled(layer, x):
    return layer.scale * x, lambda gradient: layer.scale * gradient


def rule_of_scaled(layer, inputs, gradient):
    return {"scale": DenseFactor(inputs[0] * gradient)}


@pytest.fixture
def own_layer(monkeypatch):
    """Registries to change, with a layer of a user's own."""
    for name in ("RULES", "DERIVATIVES"):
        copied = dict({"RULES": RULES, "DERIVATIVES": DERIVATIVES}[name])
        for place in ("chain", "registry" if name == "RULES" else "derivatives"):
            monkeypatch.setattr(f"skbgmd.ghost.{place}.{name}", copied)

    def register(derivative=scaled, rule=rule_of_scaled):
        register_derivative(Scaled)(derivative)
        register_rule(Scaled)(rule)
        module = nn.Sequential(nn.Linear(4, 4), Scaled())
        return Chain.of(module, list(module.parameters()))

    return register


@pytest.mark.parametrize(
    ("derivative", "found"),
    [
        (
            lambda layer, x: layer.scale * x,
            r"an output of 3 samples and a function of its gradient; found shape \(3, 4",
        ),
        (lambda layer, x: None, "found NoneType"),
        (lambda layer, x: (x, x), r"found shape \(3, 4\) and shape \(3, 4\)"),
        (lambda layer, x: (x.sum(), lambda gradient: x), r"found shape \(\) and function"),
        (lambda layer, x: (x[:2], lambda gradient: x), r"found shape \(2, 4\) and function"),
        (lambda layer, x: (x, lambda gradient: gradient[:, :2]), r"the input's shape \(3, 4\); found shape \(3, 2\)"),
        (lambda layer, x: (x, lambda gradient: None), "found NoneType"),
    ],
)
def test_what_a_derivative_of_a_user_gives_is_checked(own_layer, derivative, found):
    chain = own_layer(derivative)
    with pytest.raises(TypeError, match=f"The derivative of the layer '1', Scaled, must .*{found}"):
        chain.factors(chain.forward(torch.randn(3, 4)), torch.randn(3, 4))


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (lambda layer, inputs, gradient: [DenseFactor(gradient)], "must give a dict of factors"),
        (lambda layer, inputs, gradient: {"other": DenseFactor(gradient)}, "must name parameters of the layer"),
        (lambda layer, inputs, gradient: {"scale": gradient}, "must give factors"),
        (lambda layer, inputs, gradient: {"scale": DenseFactor(gradient[:, :2])}, "3 rows of 4 numbers for 'scale'"),
    ],
)
def test_so_is_what_a_rule_gives(own_layer, rule, found):
    chain = own_layer(rule=rule)
    with pytest.raises(TypeError, match=f"The rule of the layer '1', Scaled, .*{found}"):
        chain.factors(chain.forward(torch.randn(3, 4)), torch.randn(3, 4))


def test_a_rule_without_a_parameter_does_not_know_the_layer(own_layer):
    chain = own_layer(rule=lambda layer, inputs, gradient: {})
    with pytest.raises(NotImplementedError, match="doesn't know the parameter 'scale'"):
        chain.factors(chain.forward(torch.randn(3, 4)), torch.randn(3, 4))
