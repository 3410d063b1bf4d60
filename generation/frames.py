"""Which steps of a solver are shown, and keeping what they show, as bytes, and nothing else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samplers.generate import to_uint8
from torch_utils.errors import UserError


@dataclass(frozen=True)
class View:
    """What is shown of a step.

    Attributes:
        title: of a picture of several steps.
        image_of: (sigma, x, D) -> images [N, C, H, W] in [-1, 1].
    """

    title: str
    image_of: Callable[[float, Tensor, Tensor], Tensor]


STATES = View(
    "state x / sqrt(1 + sigma^2) at noise level sigma",
    lambda sigma, x, _: x / math.sqrt(1 + sigma**2),
)
ESTIMATES = View(
    "estimate D(x, sigma) of the image at noise level sigma", lambda sigma, x, denoised: denoised
)


def chosen_steps(num_steps: int, num_frames: int | None, default: int) -> list[int]:
    """Steps from the first, 0, to the end, num_steps, as evenly spread as integers can be.

    Args:
        num_steps: of the solver.
        num_frames: how many are chosen, at least 2; None for the default.
        default: how many if there are as many; else all.

    Raises:
        UserError: there are not so many steps.
    """
    if num_frames is not None and num_frames > num_steps + 1:
        raise UserError(
            f"--frames={num_frames}: takes {num_frames - 1} steps, there are {num_steps}, which "
            f"make {num_steps + 1} frames: give fewer frames, or more --steps"
        )
    last = (min(default, num_steps + 1) if num_frames is None else num_frames) - 1
    return [(2 * frame * num_steps + last) // (2 * last) for frame in range(last + 1)]


class Frames:
    """What chosen steps of a solver show, of one batch after the other; a callback of solvers.

    Args:
        view: what is shown.
        steps: the chosen ones, ascending; the number of steps itself stands for the final image.
        num_steps: of the solver.
    """

    def __init__(self, view: View, steps: Sequence[int], num_steps: int) -> None:
        self._view, self._steps, self._num_steps = view, steps, num_steps
        self._kept: dict[int, Tensor] = {}

    def __call__(self, i: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        """Keep a step if it is chosen; of a step that the solver takes again, the first time."""
        if i in self._steps and i not in self._kept:
            self._kept[i] = to_uint8(self._view.image_of(sigma, x, denoised)).cpu()

    def take(self, images: Tensor) -> Tensor:
        """End a batch.

        Args:
            images: what the solver returned, [N, C, H, W].

        Returns:
            uint8 [N, num_chosen, C, H, W] on the CPU.
        """
        if self._num_steps in self._steps:
            self._kept[self._num_steps] = to_uint8(images).cpu()
        frames = torch.stack([self._kept[step] for step in self._steps], dim=1)
        self._kept.clear()
        return frames


def step_names(steps: Sequence[int], sigmas: Sequence[float]) -> list[str]:
    """What stands above the steps: their noise levels, and `image` at the end."""
    num_steps = len(sigmas) - 1
    return ["image" if step == num_steps else f"{sigmas[step]:.3g}" for step in steps]
