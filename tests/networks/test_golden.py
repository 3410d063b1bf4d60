"""The networks of EDM against outputs of the published implementation (kind networks-edm).

The preconditioning is spelled out here, so that a failure points at the network.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import networks
from tests.parity.weights import fill_by_rule

GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
TABLE = json.loads((GOLDEN / "networks_edm.json").read_text())
CASES = {case["name"]: case for case in TABLE["cases"]}
SIZES = ("img_resolution", "img_channels", "label_dim", "augment_dim")
OPTIONS = ("model_channels", "channel_mult", "num_blocks", "attn_resolutions", "dropout")


def vp_condition(sigma: Tensor) -> Tensor:
    beta_d, beta_min = 19.9, 0.1
    root = (beta_min**2 + 2 * beta_d * sigma.square().log1p()).sqrt()
    return 999 * (root - beta_min) / beta_d


def iddpm_condition(sigma: Tensor) -> Tensor:
    num_steps, c_1, c_2 = 1000, 0.001, 0.008
    u = np.zeros(num_steps + 1)
    for j in range(num_steps, 0, -1):
        now, before = (math.sin(0.5 * math.pi * i / num_steps / (c_2 + 1)) ** 2 for i in (j, j - 1))
        u[j - 1] = math.sqrt((u[j] ** 2 + 1) / max(before / now, c_1) - 1)
    index = (sigma.double()[:, None] - torch.from_numpy(u)).abs().argmin(dim=1)
    return (num_steps - 1 - index).float()


# c_skip, c_out, c_in and c_noise as functions of sigma (Karras et al. 2022, table 1).
PRECONDITIONING: dict[str, Callable[[Tensor], tuple[Any, Tensor, Any, Tensor]]] = {
    "EDMPrecond": lambda s: (
        0.25 / (s**2 + 0.25),
        0.5 * s / (s**2 + 0.25).sqrt(),
        (s**2 + 0.25).rsqrt(),
        s.log().flatten() / 4,
    ),
    "VEPrecond": lambda s: (1, s, 1, (s / 2).log().flatten()),
    "VPPrecond": lambda s: (1, -s, (s**2 + 1).rsqrt(), vp_condition(s.flatten())),
    "iDDPMPrecond": lambda s: (1, -s, (s**2 + 1).rsqrt(), iddpm_condition(s.flatten())),
}


def build(case: dict[str, Any]) -> nn.Module:
    channels = case["img_channels"] * (2 if case["precond"] == "iDDPMPrecond" else 1)
    arguments = {key: case[key] for key in SIZES + OPTIONS}
    net = networks.create(case["arch"], out_channels=channels, **arguments).eval()
    named = {f"model.{key}": tensor for key, tensor in net.state_dict().items()}
    if "u" in case["state_shapes"]:
        named["u"] = torch.zeros(1001)
    assert {key: list(value.shape) for key, value in named.items()} == case["state_shapes"]
    fill_by_rule(named)
    return net


@pytest.mark.parametrize("name", CASES)
def test_denoiser_output_equals_the_published_one(name: str) -> None:
    case = CASES[name]
    net = build(case)
    with np.load(GOLDEN / "networks_edm.npz") as arrays:
        given = {
            key: torch.from_numpy(arrays[f"{name}/{key}"])
            for key in ("x", "sigma", "labels", "augment_labels", "D")
            if f"{name}/{key}" in arrays
        }
    x = given["x"]
    c_skip, c_out, c_in, c_noise = PRECONDITIONING[case["precond"]](
        given["sigma"][:, None, None, None]
    )
    with torch.no_grad():
        output = net(
            c_in * x,
            c_noise,
            given.get("labels"),
            augment_labels=given.get("augment_labels"),
        )
    denoised = c_skip * x + c_out * output[:, : x.shape[1]]
    scale = given["D"].abs().amax(dim=(1, 2, 3))
    error = ((denoised - given["D"]).abs().amax(dim=(1, 2, 3)) / scale).max()
    assert error < TABLE["tolerance"]
