"""How far solvers are from the exact law, against steps and against passes through the network.

    python -m benchmarks.solver_errors --plot=docs/images/solver-errors.png

No network and no random numbers: on Gaussian data the variance of the result is exact, and on a
mixture the law is carried through the steps by quadrature (tests/samplers/orders.py). The grid is
the default one, from 80 to 0.002 and 0, rho 7. The plot needs matplotlib.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.hardware import hardware, write_results
from diffusion.grids import rho_grid
from networks.layers import has_tangent
from samplers.solvers.adams import adams
from samplers.solvers.dpm2 import dpm2
from samplers.solvers.dpmpp import dpmpp
from samplers.solvers.euler import euler
from samplers.solvers.heun import heun
from samplers.solvers.ipndm import ipndm
from samplers.solvers.ito_taylor import ito_taylor
from samplers.solvers.sra1 import sra1
from samplers.solvers.unipc import unipc
from tests.samplers.orders import (
    MIXTURE,
    Sampler,
    euler_maruyama,
    final_variance,
    images,
    law_error,
    zeros,
)
from torch_utils.command import Command
from torch_utils.errors import UserError

STEPS = (10, 14, 20, 28, 40, 56, 80, 113, 160)
STD = 0.5  # of the Gaussian


@dataclass(frozen=True)
class Solver:
    """One curve.

    Attributes:
        name: for the legend.
        sampler: the function.
        kinds: the draws of a step, as in `tests.samplers.orders.coarse_draws`.
        style: matplotlib's line style and colour.
        options: of the sampler.
        on_mixture: options that differ there.
    """

    name: str
    sampler: Sampler
    kinds: str
    style: tuple[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    on_mixture: Mapping[str, Any] = field(default_factory=dict)


# churn and published carry their grid or their last slope from step to step, so that their law is
# not that of a chain; on the mixture they are run without their small noise
STILL = {"beta": 0.0}
ODE = [
    Solver("Euler", euler, "", ("--", "tab:gray")),
    Solver("Heun", heun, "", ("-", "tab:gray")),
    Solver("dpm2", dpm2, "", ("-", "tab:brown")),
    Solver("ipndm", ipndm, "", ("-", "tab:purple")),
    Solver("adams", adams, "", ("--", "tab:purple")),
    Solver("dpmpp, order 2", dpmpp, "", ("--", "tab:olive"), {"order": 2}),
    Solver("dpmpp", dpmpp, "", ("-", "tab:olive")),
    Solver("unipc", unipc, "", ("-", "tab:pink")),
]
SDE = [
    Solver("Euler-Maruyama", euler_maruyama, "d", ("--", "black")),
    Solver("ito_taylor strong1.5", ito_taylor, "zw", ("--", "tab:blue")),
    Solver(
        "ito_taylor strong1.5 with Laplacian",
        ito_taylor,
        "zws",
        ("-", "tab:blue"),
        {"laplacian": True},
    ),
    Solver("ito_taylor weak2", ito_taylor, "d", ("--", "tab:cyan"), {"scheme": "weak2"}),
    Solver(
        "ito_taylor weak2 with Laplacian",
        ito_taylor,
        "ds",
        ("-", "tab:cyan"),
        {"scheme": "weak2", "laplacian": True},
    ),
    Solver("ito_taylor churn", ito_taylor, "", ("-", "tab:green"), {"scheme": "churn"}, STILL),
    Solver(
        "ito_taylor churn with lag",
        ito_taylor,
        "",
        ("--", "tab:green"),
        {"scheme": "churn", "lag": True},
        STILL,
    ),
    Solver(
        "ito_taylor published, S_max=0",
        ito_taylor,
        "",
        ("--", "tab:red"),
        {"scheme": "published", "S_max": 0.0},
        STILL,
    ),
    Solver("sra1", sra1, "zw", ("-", "tab:orange")),
]
SOLVERS = [*ODE, *SDE]


def passes(solver: Solver, sigmas: Sequence[float]) -> int:
    """Forward passes through a network; a dual pass counts as two."""
    counted = 0

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        nonlocal counted
        counted += 2 if has_tangent(x) else 1
        return MIXTURE(x, sigma)

    solver.sampler(denoise, images(torch.zeros(1)), sigmas, noise=zeros(), **solver.options)
    return counted


def measure(solver: Solver) -> dict[str, Any]:
    """Errors of one solver at all numbers of steps."""
    grids = [[*rho_grid(n, 0.002, 80.0).tolist(), 0.0] for n in STEPS]
    start = 80.0**2 + STD**2
    on_mixture = {**solver.options, **solver.on_mixture}
    variances = [final_variance(solver.sampler, g, STD, start, **solver.options) for g in grids]
    return {
        "name": solver.name,
        "passes": [passes(solver, g) for g in grids],
        "gaussian": [abs(variance / STD**2 - 1) for variance in variances],
        "mixture": [law_error(solver.sampler, g, kinds=solver.kinds, **on_mixture) for g in grids],
    }


def draw(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Both errors: of solvers of the ODE against passes, of others against steps and passes.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("the plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(15, 9.5), layout="constrained")
    axes = figure.subplots(2, 3, sharey="row")
    rows = [
        ("gaussian", "N(0, 1/4): error of the variance"),
        ("mixture", "mixture of two: error of the characteristic function"),
    ]
    columns = [(ODE, "passes"), (SDE, "steps"), (SDE, "passes")]
    found = {curve["name"]: curve for curve in curves}
    for (data, title), row in zip(rows, axes, strict=True):
        for axis, (solvers, horizontal) in zip(row, columns, strict=True):
            for solver in solvers:
                curve, (line, colour) = found[solver.name], solver.style
                across = STEPS if horizontal == "steps" else curve["passes"]
                axis.loglog(across, curve[data], line, color=colour, label=solver.name, lw=1.4)
            axis.set_ylim(3e-5 if data == "gaussian" else 3e-6, 3)
            axis.grid(visible=True, which="both", alpha=0.2)
            axis.set_xlabel("steps" if horizontal == "steps" else "passes through the network")
        row[0].set_ylabel(title)
    for column, name in enumerate(("probability-flow ODE", "reverse SDE", "reverse SDE")):
        axes[0][column].set_title(name)
    for column in (0, 1):
        axes[1][column].legend(fontsize=8, loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


@click.command(cls=Command)
@click.option("--plot", metavar="PNG", help="Draw the curves.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(plot: str | None, out: str | None) -> None:
    """Print the errors of all solvers, and draw them."""
    torch.set_num_threads(1)
    curves = []
    for solver in SOLVERS:
        curve = measure(solver)
        curves.append(curve)
        for data in ("gaussian", "mixture"):
            slope = math.log(curve[data][-5] / curve[data][-1]) / math.log(STEPS[-1] / STEPS[-5])
            found = " ".join(f"{error:9.2e}" for error in curve[data][::2])
            print(f"{solver.name:36} {data:9} {found}   order {slope:5.2f}")
    record: dict[str, Any] = {"hardware": hardware(torch.device("cpu")), "steps": STEPS}
    write_results(out, record | {"grid": "80 to 0.002 and 0, rho 7", "curves": curves})
    if plot is not None:
        draw(curves, Path(plot))


if __name__ == "__main__":
    main()
