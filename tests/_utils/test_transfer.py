"""What is brought to a device is the same there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elsewhere import DEVICE, Elsewhere, Pretending
from skbgmd._utils.transfer import as_tensor, on_device


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float64])
def test_arrays_and_tensors(dtype: torch.dtype | None) -> None:
    values = np.array([0.5, -2.0, 1e-3])
    for given in (values, torch.from_numpy(values)):
        found = on_device(given, torch.device("cpu"), dtype)
        assert found.dtype == (dtype or torch.float64)
        np.testing.assert_array_equal(found.numpy(), values.astype(str(found.dtype).removeprefix("torch.")))
    # Nothing is copied that needn't be.
    assert on_device(values, torch.device("cpu")).data_ptr() == torch.from_numpy(values).data_ptr()


def test_another_device() -> None:
    with Pretending():
        found = on_device(np.arange(3), DEVICE, torch.float32)
        assert isinstance(found, Elsewhere)
        assert on_device(found, DEVICE) is found
        assert found.cpu().tolist() == [0.0, 1.0, 2.0]


def test_what_is_sent_to_a_cuda_device_may_be_overwritten_at_once(cuda: torch.device) -> None:
    values, sent = np.zeros(1 << 16), []
    for number in range(50):
        values[:] = number
        sent.append(on_device(values, cuda))
    assert all(bool((there == number).all()) for number, there in enumerate(sent))


def test_tensors_stay_and_arrays_are_on_the_cpu_whatever_the_default_device():
    values = np.array([0.5, -2.0])
    given = torch.from_numpy(values)
    with torch.device("meta"):
        assert as_tensor(given) is given
        for found in (as_tensor(values), as_tensor([0.5, -2.0]), on_device(values, given.device)):
            assert found.tolist() == [0.5, -2.0]
        assert as_tensor(given, torch.float32).dtype == as_tensor(values, torch.float32).dtype == torch.float32
