"""From a foreign state dict to a network of ours with its weights: the table of known families.

A family is recognised by the names of its tensors. Their shapes tell most of a network's options;
the caller must give the rest. There are no partial matches: every foreign tensor is used, and every
tensor of ours is filled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import networks
from importers.naming import Shapes, Source
from importers.reading import SETTINGS, Given, Reading
from networks.unet import UNet
from torch_utils.errors import UserError
from torch_utils.registry import Row

PREFIX = "module."


@dataclass(frozen=True, kw_only=True)
class Family(Row):
    """One foreign implementation; the row's target is its reader.

    A reader is a function (shapes, given) -> Reading, see `importers.reading`.

    Attributes:
        markers: tensors that all of its checkpoints have, and together no other's.
    """

    markers: tuple[str, ...]


FAMILIES: dict[str, Family] = {
    "sa-dpm": Family(
        target="importers.ddpm:read_sa_dpm",
        markers=("temb.dense.0.weight",),
        summary="SA-DPM, and the ported weights of DDPM that share its names",
    ),
    "ddpm-xyf": Family(
        target="importers.ddpm:read_ddpm_xyf",
        markers=("first_conv.weight",),
        summary="Diffusion-Models-Implementations: UNet and UNetCategorialAdaGN",
    ),
    "v-diffusion": Family(
        target="importers.vdiff:read_v_diffusion",
        markers=("time_embed.0.weight", "in_conv.weight"),
        summary="v-diffusion-torch",
    ),
}


@dataclass(frozen=True)
class Imported:
    """A foreign model in our terms.

    Attributes:
        family: a name in `FAMILIES`.
        network: {name, options...}, all options of `networks.create`.
        sizes: img_resolution (height, width), img_channels, label_dim and out_channels.
        state_dict: the weights under our names, float32; a tensor that needed no conversion shares
            its memory with the foreign one.
        settings: what the raw output means: prediction, a name; schedule, {name, options...}.
    """

    family: str
    network: dict[str, Any]
    sizes: dict[str, Any]
    state_dict: dict[str, Tensor]
    settings: dict[str, Any]


def detect(names: Mapping[str, Any]) -> str:
    """The family that tensors with these names belong to.

    Args:
        names: state dict without the prefix of a parallel wrapper; only its keys are read.

    Returns:
        A name in `FAMILIES`.

    Raises:
        UserError: no family fits, or more than one.
    """
    found = [name for name, row in FAMILIES.items() if all(key in names for key in row.markers)]
    if len(found) > 1:
        raise UserError(
            f"the checkpoint has tensors of several families, {' and '.join(found)}: it is not one"
            " network"
        )
    if not found:
        raise UserError(
            "no known family has tensors with these names (first"
            f" {', '.join(sorted(names)[:3]) or 'none'}): known are {', '.join(FAMILIES)}"
        )
    return found[0]


def import_network(state_dict: Mapping[str, Tensor], config: Mapping[str, Any]) -> Imported:
    """Translate a foreign network.

    Args:
        state_dict: foreign name -> tensor; a prefix `module.` on the names is dropped.
        config: facts that shapes do not tell, under our names: img_resolution, num_heads or
            head_dim, prediction (eps, x0, v or x0_eps) and schedule (a name, or a mapping with a
            name and the schedule's bounds), unless the family fixes them. Facts that the shapes
            tell may be given as well, and must agree; dropout is 0 unless given.

    Returns:
        The model in our terms.

    Raises:
        UserError: an unknown family; keys of `config` that are missing, unknown or contradict the
            shapes; or tensors that are missing, superfluous or of other shapes.
    """
    state = _without_prefix(state_dict)
    family = detect(state)
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    given = Given(family, config)
    reading: Reading = FAMILIES[family].load()(shapes, given)
    values = given.resolve(reading)
    sizes = {key: values.pop(key) for key in ("img_channels", "label_dim", "out_channels")}
    sizes["img_resolution"] = values.pop("img_resolution")
    settings = {key: values.pop(key) for key in SETTINGS}
    values = networks.options(reading.network) | values  # what no family has is at its default
    with torch.device("meta"):
        network = networks.create(reading.network, **sizes, **values)
    assert isinstance(network, UNet), reading.network
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    sources = reading.sources(network.encoder, network.decoder, ours)
    check_match(family, shapes, ours, sources)
    return Imported(
        family=family,
        network={"name": reading.network, **values},
        sizes=sizes,
        state_dict={name: sources[name].tensor(state).float() for name in ours},
        settings=settings,
    )


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the names inside a parallel wrapper."""
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(
                f"{name!r} of the checkpoint is not a tensor: give its state dict alone"
            )
        if tensor.layout != torch.strided or tensor.is_complex():
            raise UserError(f"{name} of the checkpoint is sparse or complex: it is not a weight")
    state = {name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()}
    if len(state) < len(state_dict):
        raise UserError(f"the checkpoint has tensors both with and without the prefix {PREFIX!r}")
    return state


def check_match(family: str, foreign: Shapes, ours: Shapes, sources: Mapping[str, Source]) -> None:
    """Raise a UserError unless the tensors fit one to one."""
    used = {name for source in sources.values() for name in source.names}
    problems = {
        "missing": sorted(used - foreign.keys()),
        "not part of it": sorted(foreign.keys() - used),
        "of another shape": [
            f"{source.names[0]} {list(foreign[source.names[0]])} (for {list(ours[name])})"
            for name, source in sources.items()
            if foreign.keys() >= set(source.names) and source.shape(foreign) != ours[name]
        ],
    }
    words = [
        f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in problems.items()
        if names
    ]
    if words:
        raise UserError(f"the tensors do not make up a {family} network: {'; '.join(words)}")
