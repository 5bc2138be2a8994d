"""Transfer of small arrays to a device."""

from __future__ import annotations

from typing import Any

import torch


def on_device(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Bring an array or a tensor to a device, as a tensor of some dtype, without waiting for the device.

    A copy from memory that may be paged out waits until a CUDA device has done all that it was given before.
    """
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
