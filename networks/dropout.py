"""Dropout (Srivastava et al. 2014) that is fast on CPUs: the mask is made of random words."""

import torch
import torch.nn.functional as F
from torch import Tensor

# bytes of an element -> integers of its size
_WORDS = {2: torch.int16, 4: torch.int32}


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Drop elements with probability p and scale the others, so that the mean stays.

    On CPUs an element is dropped if a random word of its own size is small. PyTorch draws Bernoulli
    variates there one by one, several times slower. The probability is then p rounded to 2^-16 for
    half precision, to 2^-32 for float32, and the scale is that of the rounded one. All is drawn
    from the default generator of the device.

    Args:
        x: of any shape; a mask has its memory layout.
        p: in [0, 1].
        training: otherwise nothing is dropped.
    """
    word = _WORDS.get(x.dtype.itemsize)
    if not training or word is None or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    bits = 8 * x.dtype.itemsize
    dropped = round(p * 2**bits)  # of so many words
    if not 0 < dropped < 2**bits or not x.is_floating_point():
        return F.dropout(x, p, training)
    per_draw = 64 // bits
    draws = torch.empty((x.numel() + per_draw - 1) // per_draw, dtype=torch.int64)
    words = draws.random_(-(2**63), None).view(word)[: x.numel()]
    words = words.as_strided(x.shape, torch.empty_like(x, device="meta").stride())
    scale = torch.tensor(1 / (1 - dropped / 2**bits), dtype=x.dtype).view(word).item()
    # integers 0 and 1, then the bits of 0.0 and of the scale
    mask = words.ge_(dropped - 2 ** (bits - 1)).mul_(scale).view(x.dtype)
    return x * mask
