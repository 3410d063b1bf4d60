"""Getting small tensors onto the compute device without waiting for it."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; the host goes on at once.

    From pageable memory a copy waits for all work in the device's queue; from pinned memory it
    joins that queue. PyTorch's allocator of pinned memory keeps the source until it is read.

    Args:
        tensor: of any shape; one that is on the device already is returned as it is.
        device: where it goes.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def download(tensor: Tensor) -> Tensor:
    """Begin to copy a tensor to the host; the host goes on at once.

    Returns:
        A tensor on the CPU, to be read after `finish` only.
    """
    return tensor.to("cpu", non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
