"""Types of a solver's arguments, besides the denoise function, the state and the noise levels."""

from collections.abc import Callable

from torch import Tensor

Noise = Callable[[Tensor], Tensor]  # unit normals of the shape of its argument
Project = Callable[[Tensor, float], Tensor]  # (state, sigma) -> state, after each step
Callback = Callable[[int, float, Tensor, Tensor], None]  # (step, sigma, x, D)
