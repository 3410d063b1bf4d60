"""What every solver is: its arguments, their types and their meaning, which stand here once."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from diffusion.denoiser import DenoiseFunction

Noise = Callable[[Tensor], Tensor]  # unit normals of the shape of its argument
Project = Callable[[Tensor, float], Tensor]  # (state, sigma) -> state
Callback = Callable[[int, float, Tensor, Tensor], None]  # (step, sigma, x, D)


class Solver(Protocol):
    """A function from the state at the first noise level to the state at the last."""

    def __call__(
        self,
        denoise: DenoiseFunction,
        x: Tensor,
        sigmas: Sequence[float],
        *,
        noise: Noise,
        round_sigma: Callable[[float], float] = float,
        project: Project | None = None,
        callback: Callback | None = None,
        **options: Any,
    ) -> Tensor:
        """Follow the noise levels.

        Args:
            denoise: D(x, sigma).
            x: state at sigmas[0], [N, C, H, W].
            sigmas: strictly decreasing noise levels, n + 1 of them; the last is 0, or positive to
                stop early.
            noise: the only source of randomness.
            round_sigma: nearest level that the model knows, for levels that are not in sigmas.
            project: applied to the state after each step, with its noise level.
            callback: called after each step's first evaluation of D.
            **options: the solver's own, which its row in SAMPLERS lists.

        Returns:
            The state at sigmas[-1].
        """
