"""Names, kinds, order and shapes of the tensors against the published state dictionaries."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.build import build as build_denoiser
from models.config import ModelConfig

STATE_KEYS = Path(__file__).parent / "state_keys"
CIFAR: dict[str, Any] = {"network": "ddpmpp", "img_resolution": (32, 32), "augment_dim": 9}
IMAGENET: dict[str, Any] = {"img_resolution": (64, 64)}
CRES: dict[str, Any] = IMAGENET | {"augment_dim": 9, "channel_mult": [1, 2, 2, 2]}
ADM: dict[str, Any] = IMAGENET | {"network": "adm"}
CONFIGURATIONS: dict[str, tuple[dict[str, Any], int]] = {
    "ddpmpp-cifar-cond": (CIFAR | {"label_dim": 10}, 55_735_299),
    "ddpmpp-cifar-uncond": (CIFAR, 55_733_891),
    "ncsnpp-cifar-cond": (CIFAR | {"network": "ncsnpp", "label_dim": 10}, 56_400_643),
    "ncsnpp-cifar-uncond": (CIFAR | {"network": "ncsnpp"}, 56_397_827),
    "ddpmpp-64-cres1222": (CRES | {"network": "ddpmpp"}, 61_805_571),
    "ncsnpp-64-cres1222": (CRES | {"network": "ncsnpp"}, 62_761_091),
    "adm-64-uncond-aug9": (ADM | {"augment_dim": 9}, 295_132_995),
    "adm-64-cond1000-noaug": (ADM | {"label_dim": 1000}, 295_899_267),
    "iddpm-64-cond1000": (ADM | {"label_dim": 1000, "precond": "iddpm"}, 295_904_454),
}


def published(name: str) -> list[tuple[str, str, str]]:
    with (STATE_KEYS / f"{name}.tsv").open() as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [(row["kind"], row["key"], row["shape"]) for row in rows]


def ours(net: nn.Module) -> list[tuple[str, str, str]]:
    parameters = dict(net.named_parameters())
    return [
        (
            "param" if key in parameters else "buffer",
            key,
            "x".join(str(size) for size in tensor.shape),
        )
        for key, tensor in net.state_dict().items()
    ]


def build(name: str) -> tuple[nn.Module, int]:
    given, count = CONFIGURATIONS[name]
    options = dict(given)
    network = {"name": options.pop("network")}
    if "channel_mult" in options:
        network["channel_mult"] = options.pop("channel_mult")
    config = ModelConfig.model_validate(
        {
            "network": network,
            "preconditioning": {"name": options.pop("precond", "edm")},
            "img_channels": 3,
            **options,
        }
    )
    with torch.device("meta"):
        return build_denoiser(config), count


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_state_dict_equals_the_published_one_in_names_kinds_and_shapes(name: str) -> None:
    net, _ = build(name)
    assert sorted(ours(net)) == sorted(published(name))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_parameters_come_in_the_published_order(name: str) -> None:
    net, _ = build(name)
    order = [key for kind, key, _ in published(name) if kind == "param"]
    assert [key for key, _ in net.named_parameters()] == order


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_parameter_count_is_the_published_one(name: str) -> None:
    net, count = build(name)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
