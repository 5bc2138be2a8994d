"""Transfer of small arrays to a device."""

from __future__ import annotations

from typing import Any

import torch


def as_tensor(values: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor where it is, and anything else on the CPU, whatever torch's default device is."""
    if isinstance(values, torch.Tensor):
        return values if dtype is None else values.to(dtype)
    return torch.as_tensor(values, dtype=dtype, device="cpu")


def on_device(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Bring an array or a tensor to a device, as a tensor of some dtype, without waiting for the device.

    A copy from memory that may be paged out waits until a CUDA device has done all that it was given before.
    """
    tensor = as_tensor(values, dtype)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
