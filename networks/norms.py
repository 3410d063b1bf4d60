"""Group norm (Wu & He 2018) with what U-Nets do around it: a condition, SiLU, dropout.

On a GPU in eager mode all of it is one kernel a direction, see `networks.fused_norm`; elsewhere it
is PyTorch's operations, one after the other.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.dropout import dropout as dropped
from networks.imagined import is_imagined
from networks.layers import has_tangent, is_channels_last, widen
from networks.layout import num_groups


class GroupNorm(nn.Module):
    """Group norm in float32 (Wu & He 2018); by default a group has four channels or more."""

    def __init__(self, channels: int, *, groups: int | None = None, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = groups or num_groups(channels)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        x: Tensor,
        *,
        added: Tensor | None = None,
        scale_shift: Tensor | None = None,
        silu: bool = False,
        dropout: float = 0.0,
        widens: bool = False,
    ) -> Tensor:
        """Normalise x.

        Args:
            x: features [N, C, H, W].
            added: what is added to x before, [N, C, 1, 1] or [1, C, 1, 1].
            scale_shift: scale and shift of what was normalised, h (1 + scale) + shift, joined to
                [N, 2C, 1, 1] or [1, 2C, 1, 1] (Dhariwal & Nichol 2021, section 3). Not with
                `added`.
            silu: whether SiLU follows (Elfwing et al. 2018).
            dropout: probability that an element of that is dropped.
            widens: whether the result of half precision is in float32.

        Returns:
            Features of x's shape and, unless `widens`, its dtype.
        """
        return self.with_input(
            x, added=added, scale_shift=scale_shift, silu=silu, dropout=dropout, widens=widens
        )[0]

    def with_input(
        self,
        x: Tensor,
        *,
        added: Tensor | None = None,
        scale_shift: Tensor | None = None,
        silu: bool = False,
        dropout: float = 0.0,
        widens: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """`forward`, and x for whoever else reads it.

        On a GPU the gradients of the two uses of x are then added by the norm's own kernel.
        """
        assert added is None or scale_shift is None, "added before or modulated after, not both"
        if is_fused(x):
            from networks import fused_norm

            condition = scale_shift if added is None else added
            found = fused_norm.attempt(
                self, x, condition, silu=silu, dropout=dropout, widens=widens
            )
            if found is not None:
                return found
        h = widen(x) if widens else x
        h = composed(self._normalised, h, added, scale_shift, silu)
        return dropped(h, dropout, dropout > 0), x

    def _normalised(self, x: Tensor) -> Tensor:
        if self._needs_elementary(x):
            return self._elementary(widen(x)).to(x.dtype)
        return native(x, self.num_groups, self.weight, self.bias, self.eps)

    def _needs_elementary(self, x: Tensor) -> bool:
        # The native kernel has a derivative rule in eager mode, but not when jvp is compiled.
        if torch.compiler.is_compiling():
            return has_tangent(x)
        # On CUDA it answers channels_last with NCHW, which the next convolution turns around again.
        return x.is_cuda and is_channels_last(x)

    def _elementary(self, x: Tensor) -> Tensor:
        """The definition, in operations that keep the memory layout."""
        n, c, height, width = x.shape
        groups = x.view(n, self.num_groups, c // self.num_groups, height, width)
        centred = groups - groups.mean(dim=(2, 3, 4), keepdim=True)
        inverse_std = (centred.square().mean(dim=(2, 3, 4), keepdim=True) + self.eps).rsqrt()
        normed = (centred * inverse_std).flatten(1, 2)
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


def is_fused(x: Tensor) -> bool:
    """Whether kernels of ours compute norms of x; they must also fit its condition."""
    # dynamo takes the first question for a constant, so that compiled graphs have no branch
    if torch.compiler.is_compiling() or not (x.is_cuda or is_imagined(x)):
        return False
    from networks import fused_norm

    return fused_norm.may_compute(x)


def are_used(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether kernels of ours compute norms and residual sums on a device; it may try them."""
    if device.type != "cuda":
        return False
    from networks import fused_norm, fused_sum

    return all(part.FUSION.is_trusted(device, dtype) for part in (fused_norm, fused_sum))


def native(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """PyTorch's group norm, in float32 for half precision, in x's dtype."""
    return F.group_norm(widen(x), groups, weight, bias, eps).to(x.dtype)


def composed(
    normalise: Callable[[Tensor], Tensor],
    x: Tensor,
    added: Tensor | None,
    scale_shift: Tensor | None,
    silu: bool,
) -> Tensor:
    """What `GroupNorm` computes, around a way to normalise, one operation after the other."""
    h = normalise(x if added is None else x + added)
    if scale_shift is not None:
        scale, shift = scale_shift.chunk(2, dim=1)
        h = torch.addcmul(shift, h, scale + 1)
    # in place where no gradient needs h: a tensor less at the peak of a network's call
    return F.silu(h, inplace=not torch.is_grad_enabled()) if silu else h
