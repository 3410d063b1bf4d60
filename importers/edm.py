"""Networks of EDM, CDM and the second-order solver, from their pickles, without running anything.

Karras et al. 2022, code release: network-snapshot-*.pkl, bare networks, training-state-*.pt. The
layout is read by `importers.edm_pickle`, the arguments by `importers.edm_config`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diffusion.denoiser import Denoiser
from importers.edm_config import describe
from importers.edm_pickle import Module, as_module, is_edm, plain, read_objects, state_dict, walk
from importers.interface import ForeignModel
from models.build import build
from models.config import ModelConfig
from models.snapshot import SnapshotInfo
from networks.blocks import UNetBlock
from networks.layers import PositionalEmbedding, Resample
from networks.norms import GroupNorm
from torch_utils.errors import UserError
from torch_utils.numbers import is_number
from torch_utils.text import some

__all__ = ["is_edm", "read_edm", "read_edm_state"]

FAMILY = "edm"
SAMPLING = {"name": "heun", "steps": 18}  # Algorithm 2 and its published defaults
_SHOWN = 40  # letters of a key in a message
_NUMBERED = re.compile(r"(?:network-snapshot|training-state)-(\d{1,12})\.(?:pkl|pt)$")


def read_edm(path: str | os.PathLike[str], *, weights: str = "ema") -> ForeignModel:
    """Read a network-snapshot-*.pkl, a pickle of a network alone, or a training state.

    Args:
        path: the file.
        weights: ema, which snapshots have; or raw, which training states have.

    Returns:
        The model. Its `sampling` is EDM's default, 18 steps of Algorithm 2.

    Raises:
        UserError: it is not such a file, is damaged, asks for anything to be run, or does not have
            the weights that are asked for.
    """
    tree = read_objects(path)
    if _is_state(tree):
        if weights == "raw":
            return _state_model(path, tree, None)
        raise UserError(
            f"{path} is a training state, which has no averaged weights: give the"
            " network-snapshot-*.pkl beside it, or --weights=raw"
        )
    if weights != "ema":
        raise UserError(f"{path} has averaged weights only: leave out --weights={weights}")
    root = as_module(tree.get("ema") if isinstance(tree, dict) else tree)
    if root is None:
        keys = some(sorted(str(key)[:_SHOWN] for key in tree)) if isinstance(tree, dict) else ""
        found = f"keys {keys}" if keys else f"a {type(tree).__name__}"
        raise UserError(
            f"{path} is no network of EDM: it holds {found}, not a network or a dict with one under"
            " `ema`"
        )
    return _model(path, root, ema={"kind": FAMILY})


def read_edm_state(path: str | os.PathLike[str], network: Path | None = None) -> ForeignModel:
    """Read the network of a training-state-*.pt: the weights in training, not their average.

    Args:
        path: the file.
        network: the snapshot of the same run, which must describe the same model; None for no such
            comparison.

    Raises:
        UserError: as `read_edm`; or the two are of different models.
    """
    tree = read_objects(path)
    if not _is_state(tree):
        raise UserError(f"{path} is not a training state of EDM: give a training-state-*.pt")
    return _state_model(path, tree, network)


def _is_state(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.keys() >= {"net", "optimizer_state"}


def _state_model(
    path: str | os.PathLike[str], tree: Mapping[str, Any], network: Path | None
) -> ForeignModel:
    root = as_module(tree["net"])
    if root is None:
        raise UserError(f"{path} is not a training state of EDM: its `net` is not a network")
    model = _model(path, root, ema=None)
    if network is not None and read_edm(network).info.model != model.info.model:
        raise UserError(f"{path} and {network} are of different models: give those of one run")
    note = "the moments of its optimizer are left out"
    return ForeignModel(model.family, model.info, model.state_dict, (*model.notes, note))


def _model(
    path: str | os.PathLike[str], root: Module, *, ema: dict[str, Any] | None
) -> ForeignModel:
    try:
        described = describe(root)
        found = state_dict(root)
        blank = _blank(described.config, len(found))
        tensors = _checked(blank, found)
        notes = [*described.notes, *_notes(root, blank, tensors, use_fp16=described.use_fp16)]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    label_dim = described.config.label_dim
    number = _NUMBERED.search(Path(path).name)
    info = SnapshotInfo(
        described.config,
        dict(SAMPLING),
        label_kind="class" if label_dim else None,
        label_dropout=described.label_dropout if label_dim else None,
        images=1000 * int(number[1]) if number else 0,
        ema=ema,
    )
    weights = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    return ForeignModel(FAMILY, info, weights, tuple(notes))


def _blank(config: ModelConfig, num_tensors: int) -> Denoiser:
    """The model without memory for weights; one of more blocks than tensors is refused first."""
    most = config.network["num_blocks"] * len(config.network["channel_mult"])
    if most > num_tensors:
        raise UserError(f"it says {most} blocks, but has {num_tensors} tensors")
    return build(config, empty=True)


def _checked(blank: Denoiser, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in our order, if they are those of the model."""
    expected = blank.state_dict()
    for name, tensor in found.items():
        if not tensor.is_floating_point():
            raise UserError(f"{name} in it has the type {tensor.dtype}: weights are real numbers")
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "not part of it": sorted(found.keys() - expected.keys()),
        "of another shape": sorted(
            name
            for name in expected.keys() & found.keys()
            if expected[name].shape != found[name].shape
        ),
    }
    words = [f"{len(names)} {kind}: {some(names)}" for kind, names in problems.items() if names]
    if words:
        raise UserError(f"its tensors do not make up the network that it describes: {words[0]}")
    return {name: found[name] for name in expected}


def _notes(
    root: Module, denoiser: Denoiser, tensors: Mapping[str, Tensor], *, use_fp16: bool
) -> Iterator[str]:
    """What one might not expect of the weights and of the attributes beside them."""
    if denoiser.u is not None:
        own = denoiser.u
        denoiser.load_state_dict({"u": tensors["u"].float()}, strict=False, assign=True)
        apart = ((own - tensors["u"]).abs() / own.clamp(min=own[-2])).max().item()
        if apart > 0:
            yield f"its own table of noise levels counts: up to {apart:.2g} from the formula's"
    if use_fp16:
        yield "it was trained in half precision (use_fp16); here it runs in float32"
    others = {str(t.dtype).removeprefix("torch.") for t in tensors.values()} - {"float32"}
    if others:
        yield f"it has tensors of type {some(sorted(others))}: they became float32"
    different = list(_differences(root, denoiser))
    if different:
        yield (
            f"{len(different)} of its attributes differ from what its arguments make, and are left"
            f" out: {some(different)}"
        )


# attribute of EDM's module -> what ours has, for each class of ours
_ATTRIBUTES: dict[type[nn.Module], dict[str, Any]] = {
    Denoiser: {"sigma_data": lambda ours: ours.preconditioning.sigma_data},
    UNetBlock: {
        "num_heads": lambda ours: ours.heads,
        "dropout": lambda ours: ours.dropout,
        "skip_scale": lambda ours: ours.skip_scale,
        "adaptive_scale": lambda ours: ours.adaptive_scale,
    },
    Resample: {
        "up": lambda ours: ours.resample == "up",
        "down": lambda ours: ours.resample == "down",
        "fused_resample": lambda ours: getattr(ours, "fused", False),
    },
    GroupNorm: {"num_groups": lambda ours: ours.num_groups, "eps": lambda ours: ours.eps},
    PositionalEmbedding: {
        "endpoint": lambda ours: ours.last < ours.num_freqs,
        "max_positions": lambda _: 10000,
    },
}


def _differences(root: Module, denoiser: nn.Module) -> Iterator[str]:
    """Attributes of the pickle that ours have with other values."""
    ours = dict(denoiser.named_modules())
    for name, module in walk(root):
        for kind, attributes in _ATTRIBUTES.items():
            if not isinstance(ours.get(name), kind):
                continue
            for key, value_of in attributes.items():
                value, wanted = plain(module.state.get(key)), value_of(ours[name])
                if is_number(value) or isinstance(value, bool):
                    near = abs(value - wanted) <= 1e-6 * max(abs(wanted), 1e-12)
                    if not near:
                        yield f"{f'{name}.{key}'.removeprefix('.')} {value:g} for {wanted:g}"
