"""What a CUDA graph's failed capture leaves behind in some versions of PyTorch, and its removal.

Where CUDA ends a capture with an error, `capture_end` of e.g. PyTorch 2.11 raises before it tells
the allocator and the generator of random numbers, which believe from then on that a capture is
under way: memory is not given back, and the device's next random number is an error.
"""

import torch


def end_abandoned(device: torch.device, pool: tuple[int, int]) -> None:
    """Tell the allocator and the generator that a capture whose end has failed is over.

    Args:
        device: whose work was captured.
        pool: of memory, that the capture used.
    """
    # its name before 2.8
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
    end = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
    if end is None:
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    try:
        end(index, pool)
    except RuntimeError:
        return  # the allocator knew
    torch._C._cuda_releasePool(index, pool)
    # a copy has the numbers, but not the belief
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())
