"""Files in EDM's published layout, made from networks of ours: the pickles of its training loop."""

import contextlib
import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from diffusion.denoiser import Denoiser
from models.build import build
from models.config import ModelConfig
from networks.adm import DhariwalUNet
from networks.blocks import UNetBlock
from networks.layers import Conv2d, FourierEmbedding, Linear, PositionalEmbedding
from networks.layers import Resample as Resampler
from networks.norms import GroupNorm
from networks.song import SongUNet
from tests.parity.weights import fill_by_rule
from torch_utils.sections import validated

CANARY = "CANARY_OF_THE_SOURCE"  # the file that the source text in these pickles writes
SOURCE = f"open({CANARY!r}, 'w').write('x')\nraise SystemExit('the source ran')\n"

WRAPPERS = {"VPPrecond": "vp", "VEPrecond": "ve", "iDDPMPrecond": "iddpm", "EDMPrecond": "edm"}
_SONG = {"model_type": "SongUNet", "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "ddpmpp": {
        **_SONG,
        "embedding_type": "positional",
        "encoder_type": "standard",
        "decoder_type": "standard",
        "channel_mult_noise": 1,
        "resample_filter": [1, 1],
        "attn_resolutions": [4],
        "augment_dim": 9,
        "dropout": 0.13,
    },
    "ncsnpp": {
        **_SONG,
        "embedding_type": "fourier",
        "encoder_type": "residual",
        "decoder_type": "standard",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
        "attn_resolutions": [4],
        "augment_dim": 9,
    },
    "adm": {
        "model_type": "DhariwalUNet",
        "model_channels": 32,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
    },
}
OURS = ("model_type", "augment_dim", "label_dropout")  # arguments that are not our options


class Persistent:
    """An object that is pickled as EDM's persistence library does it."""

    def __init__(self, class_name: str, state: dict[str, Any], **meta: Any) -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": class_name,
            "state": state,
            **meta,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@contextlib.contextmanager
def published_modules() -> Iterator[None]:
    """EDM's library exists by name, so that pickles can be made that name it."""
    library = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: Any) -> Any:
        raise AssertionError("an object was made of a pickle")

    _reconstruct_persistent_obj.__module__ = library.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    library._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    sys.modules[library.__name__] = library
    try:
        yield
    finally:
        del sys.modules[library.__name__]


def foreign_config(
    wrapper: str, network: str, label_dim: int = 3, img_channels: int = 2, **section: Any
) -> ModelConfig:
    """Our config of a small model; `section` is added to its preconditioning."""
    options = {k: v for k, v in NETWORKS[network].items() if k not in OURS}
    # without a value, the argument has EDM's default
    tree = {
        "network": {"name": network, **{"dropout": 0.1, **options}},
        "preconditioning": {"name": WRAPPERS[wrapper], **section},
        "img_resolution": [8, 8],
        "img_channels": img_channels,
        "label_dim": label_dim,
        "augment_dim": NETWORKS[network].get("augment_dim", 0),
    }
    config: ModelConfig = validated(ModelConfig, tree, "test")
    return config


def denoiser_of(config: ModelConfig) -> Denoiser:
    """The model in evaluation mode, filled by the rule of the golden cases."""
    denoiser = build(config).eval()
    fill_by_rule(denoiser)
    return denoiser.requires_grad_(False)


def snapshot(denoiser: Denoiser, wrapper: str, network: str, **changes: Any) -> Persistent:
    """The `ema` of a snapshot.

    Args:
        denoiser: whose weights it has.
        wrapper: EDM's class.
        network: key of NETWORKS.
        **changes: arguments of its constructor that are changed or added.
    """
    arguments = {
        "img_resolution": denoiser.img_resolution[0],
        "img_channels": denoiser.img_channels,
        "label_dim": denoiser.label_dim,
        "use_fp16": False,
        **NETWORKS[network],
        **changes,
    }
    state = _state(denoiser, arguments)
    state |= {key: arguments[key] for key in ("img_resolution", "img_channels", "label_dim")}
    state |= {"sigma_min": denoiser.sigma_min, "sigma_max": denoiser.sigma_max}
    if denoiser.preconditioning.uses_sigma_data:
        state["sigma_data"] = denoiser.preconditioning.sigma_data
    return Persistent(wrapper, state)


def _state(module: nn.Module, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """The attributes of a module as torch and EDM's classes have them."""
    hidden = module._non_persistent_buffers_set
    buffers = {k: v for k, v in module._buffers.items() if k not in hidden}
    if isinstance(module, Denoiser) and module.u is None:
        del buffers["u"]
    state: dict[str, Any] = {
        "training": False,
        "_parameters": {k: v for k, v in module._parameters.items() if v is not None},
        "_buffers": buffers,
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_is_full_backward_hook": None,
        "_forward_hooks": OrderedDict(),
        "_modules": {k: _module(v) for k, v in module._modules.items() if v is not None},
    }
    if arguments is None:
        return state | _attributes(module) | {"_init_args": (), "_init_kwargs": {}}
    return state | {"_init_args": (), "_init_kwargs": arguments}


def _module(module: nn.Module) -> Any:
    if isinstance(module, nn.ModuleDict):
        container = nn.ModuleDict()
        container._modules = {k: _module(v) for k, v in module._modules.items() if v is not None}
        return container
    kinds = (SongUNet, DhariwalUNet, UNetBlock, Conv2d, GroupNorm, Linear, FourierEmbedding)
    for kind in (*kinds, PositionalEmbedding):
        if isinstance(module, kind):
            return Persistent(kind.__name__, _state(module))
    assert isinstance(module, Resampler), module
    return Persistent("Conv2d", _state(module) | {"weight": None, "bias": None})


def _attributes(module: nn.Module) -> dict[str, Any]:
    if isinstance(module, UNetBlock):
        return {
            "num_heads": module.heads,
            "dropout": module.dropout,
            "skip_scale": np.float64(module.skip_scale),
            "adaptive_scale": module.adaptive_scale,
        }
    if isinstance(module, Resampler):
        return {
            "up": module.resample == "up",
            "down": module.resample == "down",
            "fused_resample": getattr(module, "fused", False),
        }
    if isinstance(module, GroupNorm):
        return {"num_groups": module.num_groups, "eps": module.eps}
    if isinstance(module, PositionalEmbedding):
        is_endpoint = module.last < module.num_freqs
        return {"num_channels": 2 * module.num_freqs, "endpoint": is_endpoint}
    return {}


def whole(ema: Any) -> dict[str, Any]:
    """The content of a network-snapshot-*.pkl."""
    loss = {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5, "_init_args": (), "_init_kwargs": {}}
    dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": "x.zip", "xflip": False}
    return {
        "ema": ema,
        "loss_fn": Persistent("EDMLoss", loss),
        "augment_pipe": None,
        "dataset_kwargs": dataset,
    }


def pickled(content: Any, protocol: int = 4) -> bytes:
    """What EDM's training loop writes."""
    with published_modules():
        return pickle.dumps(content, protocol)


def training_state(net: Any, denoiser: Denoiser) -> bytes:
    """What torch.save writes of a network and its optimizer."""
    moments = {
        index: {"step": torch.tensor(3.0), "exp_avg": 0 * p, "exp_avg_sq": 0 * p}
        for index, p in enumerate(denoiser.parameters())
    }
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(moments)}]
    buffer = io.BytesIO()
    with published_modules():
        torch.save(
            {"net": net, "optimizer_state": {"state": moments, "param_groups": groups}}, buffer
        )
    return buffer.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
