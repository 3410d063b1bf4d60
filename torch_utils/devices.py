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


class Download:
    """Copies of tensors on the host, begun at once; whoever reads them waits until they are there.

    Args:
        *tensors: what is copied, as it is once the work that the device was given is done. Those on
            the CPU are not copied.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._copies = [download(tensor) for tensor in tensors]
        self._arrived: torch.cuda.Event | None = None
        devices = {tensor.device for tensor in tensors if tensor.is_cuda}
        if devices:
            (device,) = devices
            self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._arrived.record(torch.cuda.current_stream(device))

    def read(self) -> list[Tensor]:
        """The copies; any thread may ask, also several times."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copies


def finish(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
