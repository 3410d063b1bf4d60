"""What a row of the table of samplers says, and how many calls most solvers make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusion import DEFAULT_STEPS
from torch_utils.registry import Row

Options = Mapping[str, object]  # all options of a sampler


@dataclass(frozen=True, kw_only=True)
class SamplerRow(Row):
    """A registered sampler.

    Attributes:
        grid: key of GRIDS, the default time grid.
        order: formal order of the solver in its own variable, with its default options. If the
            solver draws noise, it is the order of convergence in law.
        order_note: what to know about the order.
        num_calls: number of denoiser calls for n steps with some options, and whether the last step
            goes to 0.
        is_stochastic: whether the sampler draws noise with some options.
        steps: the default number of steps with some options: enough for the solver to be stable,
            see `samplers.stability`.
        takes_derivatives: whether the solver differentiates the network, which it does in float32.
        goes_up: whether the solver, without noise, also runs from low noise levels to high ones.
        least_steps: the fewest steps of the default grid with which the solver is stable, and stays
            so with more, with its default options.
        paper: where it comes from.
    """

    grid: str
    order: float
    order_note: str = ""
    num_calls: Callable[[int, Options, bool], int]
    is_stochastic: Callable[[Options], bool]
    takes_derivatives: bool = False
    goes_up: bool = False
    steps: Callable[[Options], int] = lambda options: DEFAULT_STEPS
    least_steps: int
    paper: str


def one_a_step(num_steps: int, options: Options, to_zero: bool) -> int:
    return num_steps


def two_a_step(num_steps: int, options: Options, to_zero: bool) -> int:
    """A step to 0 has one."""
    return 2 * num_steps - to_zero
