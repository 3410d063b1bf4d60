"""A loss term of one's own: a class and a row make it a name, for recipes and Python alike.

python examples/own_loss.py OUTDIR [SECTION.KEY=VALUE]...
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

import driftless
from diffusion.preconditioning import broadcast_sigma
from losses import TERMS
from losses.batch import Context, NoisedBatch
from losses.terms import Term
from torch_utils.registry import Row


@dataclass
class PseudoHuber(Term):
    """w(sigma) 2c (sqrt(r^2 + c^2) - c): square near 0, linear far out. Song, Dhariwal 2023."""

    c: float

    def __call__(
        self, noised: NoisedBatch, context: Context, draws: Mapping[str, Tensor]
    ) -> Tensor:
        """Values per element, [N, C, H, W]."""
        weight = context.weight(broadcast_sigma(noised.sigma, noised.y))
        root = (noised.residual.square() + self.c**2).sqrt()
        return weight * 2 * self.c * (root - self.c)


TERMS["pseudo_huber"] = Row(
    target=f"{__name__}:PseudoHuber",
    options={"lambda": 1.0, "c": 0.5},
    ranges={"lambda": (0, math.inf), "c": (1e-6, math.inf)},
    summary="a robust distance; Song and Dhariwal 2023",
)

outdir, *overrides = sys.argv[1:] or ["runs"]
run = driftless.train(
    {
        "base": "configs/digits-tiny.yaml",
        "loss": {"terms": [{"name": "pseudo_huber", "c": 0.3}]},
    },
    *overrides,
    outdir=outdir,
)
first, *_, last = (row["Loss/pseudo_huber"]["mean"] for row in run.stats)
print(f"{run.folder.name}: {first:.4f} -> {last:.4f}")
