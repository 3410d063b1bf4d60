"""The precision that all processes agree on; loss scaling and steps that are not finite.

The latter are decided on the device, without waiting for it. fp16 scales the loss so that small
gradients survive; the scale halves after an overflow and doubles after `GROWTH_INTERVAL` good steps
(Micikevicius et al. 2018). In every precision, a step whose loss or gradient is not finite is
skipped and counted.
"""

import torch
from torch import Tensor

from torch_utils.distributed import World
from torch_utils.precision import AUTO, resolve_precision

GROWTH_INTERVAL = 2000


def fast_for_all(world: World) -> str:
    """What the precision `auto` means where some devices may be slow; all processes must ask."""
    precision = resolve_precision(AUTO, world.device)
    (is_slow,) = world.any(precision == "fp32")
    return "fp32" if is_slow else precision


class StepGuard:
    """Loss scale and counters of bad steps, as tensors on the device.

    Attributes:
        scale: what the loss is multiplied by; stays 1 unless precision is fp16.
        skipped: steps skipped so far.
        in_a_row: bad steps since the last good one.
    """

    def __init__(self, precision: str, first_scale: float, device: torch.device) -> None:
        self.adapts = precision == "fp16"
        self.scale = torch.tensor(first_scale if self.adapts else 1.0, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)
        self.skipped = torch.zeros((), dtype=torch.int32, device=device)
        self.in_a_row = torch.zeros((), dtype=torch.int32, device=device)
        # read without a synchronisation: on a GPU it may lag a few steps behind
        self._seen = torch.zeros((), dtype=torch.int32, pin_memory=device.type == "cuda")

    def update(self, is_bad: Tensor) -> None:
        """Note the outcome of a step; `is_bad` is a scalar bool tensor."""
        bad = is_bad.to(torch.int32)
        self.skipped += bad
        self.in_a_row.copy_((self.in_a_row + 1) * bad)
        if self.adapts:
            self.good_steps.copy_((self.good_steps + 1) * (1 - bad))
            grows = self.good_steps >= GROWTH_INTERVAL
            self.scale *= torch.where(is_bad, 0.5, torch.where(grows, 2.0, 1.0))
            self.good_steps.copy_(torch.where(grows, 0, self.good_steps))
        self._seen.copy_(self.in_a_row, non_blocking=True)

    def recent_bad_steps(self) -> int:
        """Bad steps in a row, as far as this process knows without waiting for the device."""
        return int(self._seen)

    def is_in_streak(self) -> bool:
        """Whether the last step was bad in a way that a smaller loss scale does not explain.

        Waits for the device. In fp16 a single overflow is how the scale finds its size.
        """
        return int(self.in_a_row) > (1 if self.adapts else 0)

    def state(self) -> dict[str, Tensor]:
        """Tensors to save."""
        names = ("scale", "good_steps", "skipped", "in_a_row")
        return {name: getattr(self, name).cpu() for name in names}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
        self._seen.copy_(self.in_a_row)
