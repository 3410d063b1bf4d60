"""Getting small tensors onto the compute device without waiting for it."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from host memory to a device; the host goes on at once.

    From pageable memory a copy waits for all work in the device's queue; from pinned memory it
    joins that queue. PyTorch's allocator of pinned memory keeps the source until it is read.

    Args:
        tensor: of any shape, on the CPU.
        device: where it goes.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
