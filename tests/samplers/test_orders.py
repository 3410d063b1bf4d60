"""Every sampler converges as fast as its row says, and as what is written about its options."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from samplers import SAMPLERS
from samplers.levels import visited_levels
from samplers.settings import generation_settings
from tests.samplers.orders import (
    default_grid_order,
    flow_order,
    graded_order,
    law_order,
    strong_order,
    variance_order,
)


@dataclass(frozen=True)
class Expectation:
    """One order of one sampler.

    Attributes:
        name: key of SAMPLERS.
        measure: flow_order, graded_order, law_order, variance_order or strong_order.
        arguments: options of the sampler, and arguments of the measure.
        order: what it should be; None for the order that the row states, with default options.
        steps: numbers of steps.
    """

    name: str
    measure: Callable[..., float]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    order: float | None = None
    steps: tuple[int, ...] = (16, 32, 64)

    def __str__(self) -> str:
        options = [f"{key}={value}" for key, value in self.arguments.items() if key != "kinds"]
        return "-".join([self.name, self.measure.__name__, *options])


FINE = (32, 64)
MEMORY = (32, 64, 128)  # for methods that start with lower orders
FINER, FINEST = (64, 128, 256), (256, 512, 1024)
NOISE = {"beta": 4.0}  # shows the terms of strong order 1.5

# One without an order for every row: what the row states, of its default options. For restart that
# is the order of its steps; tests/samplers/test_restart.py has that of its restarts.
EXPECTATIONS = [
    Expectation("heun", flow_order),
    Expectation("euler", flow_order),
    Expectation("ddim", flow_order),
    Expectation("ddim", law_order, {"kinds": "d", "eta": 1.0}, 1),
    Expectation("ddpm", law_order, {"kinds": "d"}),
    Expectation("ddpm", law_order, {"kinds": "d", "variance": "large"}, 1),
    Expectation("ablation", flow_order),
    Expectation("ablation", flow_order, {"alpha": 0.5}, 2),
    Expectation("ablation", flow_order, {"schedule": "vp", "scaling": "vp"}, 2),
    Expectation("ablation", flow_order, {"schedule": "ve"}, 2),
    Expectation("ablation", flow_order, {"solver": "euler"}, 1),
    Expectation("reverse_sde", law_order, {"kinds": "d"}),
    Expectation("reverse_sde", law_order, {"kinds": "d", "corrector": "shared"}, 2),
    Expectation("reverse_sde", law_order, {"kinds": "dd", "corrector": "published"}, 1, FINE),
    Expectation("reverse_sde", strong_order, {"kinds": "d", "rho": 1.0}, 1),
    Expectation("ito_taylor", law_order, {"kinds": "zw"}, None, FINE),
    Expectation("ito_taylor", law_order, {"kinds": "zws", "laplacian": True}, 2),
    Expectation("ito_taylor", law_order, {"kinds": "d", "scheme": "weak2"}, 1, FINE),
    Expectation("ito_taylor", law_order, {"kinds": "ds", "scheme": "weak2", "laplacian": True}, 2),
    Expectation("ito_taylor", strong_order, {"kinds": "zw", **NOISE}, 1),
    Expectation("ito_taylor", strong_order, {"kinds": "zws", "laplacian": True, **NOISE}, 1.5),
    Expectation("ito_taylor", flow_order, {"beta": 0.0}, 2),
    Expectation("ito_taylor", flow_order, {"beta": 0.0, "lag": True}, 2),
    Expectation("ito_taylor", flow_order, {"beta": 0.0, "scheme": "churn"}, 2),
    Expectation("ito_taylor", flow_order, {"beta": 0.0, "scheme": "churn", "lag": True}, 2),
    Expectation("ito_taylor", flow_order, {"beta": 0.0, "scheme": "published", "S_max": 0.0}, 1),
    Expectation("sra1", law_order, {"kinds": "zw"}),
    Expectation("sra1", strong_order, {"kinds": "zw", **NOISE}, 1.5),
    Expectation("sra1", flow_order, {"beta": 0.0}, 2),
    Expectation("dpm2", flow_order),
    Expectation("dpmpp_2m_sde", variance_order, {}, None, MEMORY),
    Expectation("dpmpp_2m_sde", variance_order, {"solver_type": "heun"}, 2, MEMORY),
    Expectation("dpmpp_2m_sde", variance_order, {"eta": 0.3}, 2, MEMORY),
    Expectation("dpmpp_2m_sde", flow_order, {"eta": 0.0}, 2, MEMORY),
    Expectation("dpmpp_2m_sde", flow_order, {"eta": 0.0, "solver_type": "heun"}, 2, MEMORY),
    Expectation("dpmpp_3m_sde", variance_order, {}, None, MEMORY),
    Expectation("dpmpp_3m_sde", variance_order, {"eta": 2.0}, 2, MEMORY),
    Expectation("dpmpp_3m_sde", flow_order, {"eta": 0.0}, 2, (128, 256, 512)),
    Expectation("restart", flow_order, {"restarts": []}),
    Expectation("ipndm", graded_order, {}, None, FINER),
    *(Expectation("ipndm", graded_order, {"order": n}, min(n, 2), FINER) for n in (1, 2, 3)),
    Expectation("adams", graded_order, {}, None, FINER),
    *(Expectation("adams", graded_order, {"order": n}, n, FINER) for n in (1, 2, 3)),
    Expectation("adams", flow_order, {}, 2, FINEST),
    Expectation("dpmpp", graded_order, {}, None, FINEST),
    *(Expectation("dpmpp", graded_order, {"order": n}, n, FINER) for n in (1, 2)),
    Expectation("dpmpp", flow_order, {"order": 2}, 2, FINER),
    Expectation("dpmpp", flow_order, {}, 2, FINER),
    Expectation("dpmpp", flow_order, {"lower_order_final": False}, 2, FINEST),
    Expectation("unipc", graded_order, {}, None, FINER),
    *(
        Expectation("unipc", graded_order, {"order": n, "variant": variant}, n + 1, FINER)
        for n in (1, 2, 3)
        for variant in ("bh1", "bh2")
    ),
    *(
        Expectation("unipc", flow_order, {"order": n, "lower_order_final": False}, n + 1, FINER)
        for n in (1, 2, 3)
    ),
    Expectation("unipc", flow_order, {}, 2, FINER),
]

# Order of the error of the variance on Gaussian data, from 50 to 200 steps of the default grid to
# 0. D is affine there, so what needs the Laplacian for order 2 does without. The error of unipc is
# soon that of the step to 0, 1.6e-5.
ON_DEFAULT_GRIDS = {
    "heun": 2.06,
    "euler": 0.98,
    "ddim": 0.96,
    "ddpm": 0.82,
    "ipndm": 2.11,
    "adams": 3.76,
    "dpmpp": 2.2,
    "unipc": 1.39,
    "ablation": 2.06,
    "reverse_sde": 1.06,
    "ito_taylor": 2.22,
    "sra1": 2.08,
    "dpm2": 2.07,
    "dpmpp_2m_sde": 2.01,
    "dpmpp_3m_sde": 2.12,
    "restart": 0.22,
}


@pytest.mark.parametrize("expected", EXPECTATIONS, ids=str)
def test_the_order_is_what_is_said_of_it(expected: Expectation) -> None:
    row = SAMPLERS[expected.name]
    order = row.order if expected.order is None else expected.order
    found = expected.measure(row.load(), expected.steps, **expected.arguments)
    assert found == pytest.approx(order, abs=0.15)


def test_every_row_has_an_order_to_be_measured() -> None:
    measured = {expected.name for expected in EXPECTATIONS if expected.order is None}
    missing = set(SAMPLERS) - (measured & set(ON_DEFAULT_GRIDS))
    assert not missing, (
        f"samplers {sorted(missing)}: add a row without an order to EXPECTATIONS and one to "
        "ON_DEFAULT_GRIDS"
    )
    for expected in EXPECTATIONS:
        row = SAMPLERS[expected.name]
        is_law = row.is_stochastic({**row.options, **expected.arguments})
        if expected.order is None:
            measures = (law_order, variance_order) if is_law else (flow_order, graded_order)
            assert expected.measure in measures, str(expected)


@pytest.mark.parametrize("name", ON_DEFAULT_GRIDS)
def test_the_order_on_the_default_grid_is_what_is_said_of_it(name: str) -> None:
    def levels(steps: int) -> list[float]:
        return visited_levels(
            generation_settings({"name": name, "steps": steps}), 0, math.inf, float
        )[0]

    row = SAMPLERS[name]
    found = default_grid_order(row.load(), levels, (50, 100, 200), **row.options)
    assert found == pytest.approx(ON_DEFAULT_GRIDS[name], abs=0.05)
