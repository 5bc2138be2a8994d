"""Rows of gradients, and their way back to the parameters."""

from __future__ import annotations

import pytest
import torch

from nets import Checkpointed, Reversible
from skbgmd.training._step.gradient_matrix import GradientMatrix, is_dense

# Loaders, layers and nets draw from torch's global generator, as they do without this library.
pytestmark = pytest.mark.usefixtures("forked")


@pytest.fixture
def module():
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def loss_of(module, seed):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return module(X).square().mean()


def test_rows_are_gradients_and_go_back(module):
    parameters = list(module.parameters())
    gradients = GradientMatrix(parameters)
    rows = gradients.rows(2)
    assert rows.shape == (2, sum(p.numel() for p in parameters))
    for seed in (0, 1):
        gradients.differentiate(loss_of(module, seed), rows[seed])
    loss_of(module, 0).backward()
    assert torch.equal(rows[0], torch.cat([p.grad.flatten() for p in parameters]))
    before = [p.grad.clone() for p in parameters]
    gradients.add_to_gradients(rows[1].clone())
    parts = rows[1].split([p.numel() for p in parameters])
    for parameter, old, part in zip(parameters, before, parts, strict=True):
        assert torch.equal(parameter.grad, old + part.view_as(parameter))


def test_memory_is_used_again(module):
    gradients = GradientMatrix(list(module.parameters()))
    assert gradients.rows(4).data_ptr() == gradients.rows(3).data_ptr() == gradients.rows(4).data_ptr()
    assert gradients.begin(list(module.parameters()))
    assert not gradients.begin(list(module.parameters())[1:])


def test_parameters_that_a_loss_does_not_use(module):
    gradients = GradientMatrix(list(module.parameters()))
    row = gradients.rows(1)[0].fill_(7.0)
    gradients.differentiate(module[0].weight.sum(), row)
    assert torch.equal(row[:12], torch.ones(12, dtype=torch.float64))
    assert torch.equal(row[12:], torch.zeros(len(row) - 12, dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 3])
def test_a_way_of_local_steps(module, steps):
    parameters = list(module.parameters())
    gradients, lr = GradientMatrix(parameters), 0.1
    before = [p.detach().clone() for p in parameters]
    row = gradients.rows(1)[0]
    losses = gradients.local_sgd_displacement(
        [lambda seed=seed: loss_of(module, seed) for seed in range(steps)], lr, row
    )
    assert len(losses) == steps
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    optimizer = torch.optim.SGD(parameters, lr=lr)
    for seed in range(steps):
        optimizer.zero_grad()
        loss_of(module, seed).backward()
        optimizer.step()
    way = torch.cat([((old - p) / lr).flatten() for p, old in zip(parameters, before, strict=True)])
    torch.testing.assert_close(row, way.detach(), rtol=1e-10, atol=1e-12)


def test_half_precision_parameters_get_float32_rows():
    module = torch.nn.Linear(3, 2).to(torch.bfloat16)
    gradients = GradientMatrix(list(module.parameters()))
    row = gradients.rows(1)[0]
    assert row.dtype == torch.float32
    gradients.differentiate(module(torch.ones(4, 3, dtype=torch.bfloat16)).float().sum(), row)
    gradients.add_to_gradients(row)
    assert module.weight.grad.dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_everything_stays_on_the_device(module):
    module = module.cuda()
    gradients = GradientMatrix(list(module.parameters()))
    row = gradients.rows(1)[0]
    assert row.is_cuda
    gradients.differentiate(module(torch.ones(2, 3, dtype=torch.float64, device="cuda")).sum(), row)
    gradients.add_to_gradients(row)
    assert module[0].weight.grad.is_cuda


def test_what_the_loss_does_not_depend_on_gets_no_gradient():
    parameters = [
        torch.ones(2, requires_grad=True),
        torch.ones(0, requires_grad=True),
        torch.ones(3, requires_grad=True),
    ]
    gradients = GradientMatrix(parameters)
    rows = gradients.rows(2)
    gradients.differentiate(parameters[2].sum(), rows[0])
    gradients.differentiate(parameters[2].square().sum(), rows[1])
    gradients.add_to_gradients(rows[0] + rows[1])
    assert parameters[0].grad is None
    assert parameters[2].grad.tolist() == [3.0, 3.0, 3.0]
    gradients.begin(gradients.parameters)
    gradients.use([0])
    gradients.add_to_gradients(torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))
    assert parameters[0].grad.tolist() == [1.0, 1.0]
    assert parameters[2].grad.tolist() == [3.0, 3.0, 3.0]
    # What an aggregator kept of earlier steps is not lost.
    gradients.begin(gradients.parameters)
    gradients.add_to_gradients(torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0]))
    assert parameters[2].grad.tolist() == [4.0, 4.0, 4.0]
    with pytest.raises(ValueError, match="must have parameters that require gradients"):
        GradientMatrix([])


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    ("kind", "message"),
    [(Checkpointed, "use_reentrant=False"), (Reversible, "leave grad alone")],
    ids=["checkpointed", "reversible"],
)
def test_what_gives_no_gradients_back_is_refused(kind, message, steps):
    module = kind()
    gradients = GradientMatrix(list(module.parameters()))
    before = [parameter.detach().clone() for parameter in module.parameters()]

    def loss():
        return module(torch.randn(6, 4)).square().mean()

    def differentiate(row):
        if steps > 1:
            gradients.local_sgd_displacement([loss] * steps, 0.1, row)
        else:
            gradients.differentiate(loss(), row)

    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            differentiate(gradients.rows(1)[0])
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(map(torch.equal, module.parameters(), before))


LAYOUTS = {
    "contiguous": lambda: torch.randn(3, 4),
    "channels last": lambda: torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(4, 3).T,
    "permuted": lambda: torch.randn(2, 3, 4).permute(2, 0, 1),
    "flipped and transposed": lambda: torch.randn(4, 3).flip(0).T,
    "columns": lambda: torch.randn(3, 9)[:, :4],
    "every other column": lambda: torch.randn(3, 8)[:, ::2],
    "transposed columns": lambda: torch.randn(4, 9)[:, :3].T,
    "complex, transposed": lambda: torch.randn(4, 3, dtype=torch.complex64).T,
    "half precision, transposed": lambda: torch.randn(4, 3, dtype=torch.bfloat16).T,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_have_the_strides_that_autograd_gives_them(layout):
    """Fused optimizers go through the memory of parameters and gradients, whatever the strides are."""
    parameter = torch.nn.Parameter(LAYOUTS[layout]())
    factors = torch.randn(parameter.shape)

    def loss():
        return (parameter * factors.to(parameter.dtype)).abs().square().sum()

    loss().backward()
    expected, parameter.grad = parameter.grad, None
    gradients = GradientMatrix([torch.nn.Parameter(torch.ones(1)), parameter])
    row = gradients.rows(1)[0]
    gradients.differentiate(loss(), row)
    gradients.add_to_gradients(row)
    assert parameter.grad.stride() == expected.stride()
    assert parameter.grad.dtype == expected.dtype
    torch.testing.assert_close(parameter.grad, expected)
    assert is_dense(parameter) == (parameter.stride() == expected.stride())


def test_a_gradient_that_was_sparse_has_the_strides_of_its_parameter():
    table = torch.nn.Embedding.from_pretrained(torch.randn(3, 5).T, freeze=False, sparse=True)
    table(torch.tensor([1, 4])).square().sum().backward()
    assert table.weight.grad.is_sparse
    expected = table.weight.grad.to_dense() + 1.0
    gradients = GradientMatrix([table.weight])
    gradients.use_all()
    gradients.add_to_gradients(torch.ones(15))
    assert table.weight.grad.stride() == table.weight.stride() == (1, 5)
    assert torch.equal(table.weight.grad, expected)
