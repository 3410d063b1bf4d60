"""A model of ours as a folder of the library diffusers, if its UNet2DModel can express it."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from diffusion.preconditioning import Preconditioning
from diffusion.tables import Table
from importers.diffusers_clipping import UNBOUNDED
from importers.diffusers_files import (
    INDEX,
    NETWORK_CONFIG,
    NETWORK_FOLDER,
    SCHEDULER_CONFIG,
    SCHEDULER_FOLDER,
    STEM,
)
from importers.diffusers_names import INVERSES, sources_of
from importers.diffusers_schedulers import PREDICTIONS, SCHEDULE_NAMES
from importers.diffusers_unet import CLASS, RESAMPLERS
from models.config import ModelConfig
from models.snapshot import SnapshotInfo
from networks import NETWORKS
from networks.unet import UNet
from torch_utils.errors import UserError
from torch_utils.files import replacing, sync_folder, writing
from torch_utils.registry import resolve_entry

_VERSION = "0.27.0"  # of the library, which only warns of keys that are newer than itself
_SPACINGS = {"leading": "leading", "linspace_rounded": "linspace", "exact": "trailing"}
_FULL = 1000  # steps of DDPMPipeline unless it is told


def write_diffusers(
    folder: str | os.PathLike[str], denoiser: Denoiser, info: SnapshotInfo
) -> list[str]:
    """Write a pipeline's folder: network, weights and scheduler.

    Args:
        folder: it must not exist, or be empty.
        denoiser: the model.
        info: its description; `sampling` chooses the scheduler.

    Returns:
        A line for each thing that the folder cannot keep.

    Raises:
        UserError: the library cannot express the model, or the folder cannot be written.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already and is not empty: choose another folder")
    network = _unet_config(info.model, info)
    scheduler, notes = _scheduler_config(denoiser.preconditioning, info)
    pipeline = "DDIMPipeline" if scheduler["_class_name"] == "DDIMScheduler" else "DDPMPipeline"
    index = {
        "_class_name": pipeline,
        "_diffusers_version": _VERSION,
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", CLASS],
    }
    if info.model.label_dim:
        notes.append(f"{pipeline} gives no classes: call the network with class_labels yourself")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with writing(path):
        try:
            weights = temporary / NETWORK_FOLDER / f"{STEM}.safetensors"
            _write_weights(weights, denoiser, info.model)
            _write_json(temporary / NETWORK_FOLDER / NETWORK_CONFIG, network)
            _write_json(temporary / SCHEDULER_FOLDER / SCHEDULER_CONFIG, scheduler)
            _write_json(temporary / INDEX, index)
            if path.is_dir():
                path.rmdir()  # it is empty
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return notes


def _write_json(path: Path, tree: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def _write_weights(path: Path, denoiser: Denoiser, model: ModelConfig) -> None:
    from safetensors.torch import save_file

    network = denoiser.model
    assert isinstance(network, UNet)
    options = resolve_entry("network", NETWORKS, model.network)[2]
    sources = sources_of(network, len(options["channel_mult"]), options["num_blocks"])
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        source = sources[name]
        whole = INVERSES[source.convert](tensor.detach().cpu().float())
        parts = whole.chunk(len(source.names))
        tensors |= {
            n: p.clone(memory_format=torch.contiguous_format)
            for n, p in zip(source.names, parts, strict=True)
        }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def _cannot(what: str) -> UserError:
    return UserError(f"{CLASS} of diffusers cannot express {what}")


def _unet_config(model: ModelConfig, info: SnapshotInfo) -> dict[str, Any]:
    """The config of the network."""
    name, _, options = resolve_entry("network", NETWORKS, model.network)
    if name != "ddpm":
        raise _cannot(f"the network {name}: only ddpm")
    unit = options["model_channels"]
    widths = [unit * mult for mult in options["channel_mult"]]
    if (options["first_channels"] or unit) != widths[0]:
        raise _cannot(
            f"first_channels {options['first_channels'] or unit} other than the width of the finest"
            f" level, {widths[0]}"
        )
    if model.label_dim and info.label_kind not in (None, "class"):
        raise _cannot(f"labels of the kind {info.label_kind}: only classes")
    side = max(model.img_resolution)
    attention = [side >> level in options["attn_resolutions"] for level in range(len(widths))]
    height, width = model.img_resolution
    middle, modulation = options["middle_attention"], options["modulation"]
    if middle == "plain" and modulation == "add":
        raise _cannot("middle_attention plain with modulation add")
    groups = options["num_groups"]
    return {
        "_class_name": CLASS,
        "_diffusers_version": _VERSION,
        "sample_size": height if height == width else [height, width],
        "in_channels": model.img_channels,
        "out_channels": model.img_channels,
        "time_embedding_type": "positional",
        **_embedding(options["emb_channels"], widths[0]),
        "freq_shift": int(options["freq_endpoint"]),
        "flip_sin_to_cos": options["cosine_first"],
        "block_out_channels": widths,
        "layers_per_block": options["num_blocks"],
        "mid_block_type": "UNetMidBlock2D",
        "downsample_padding": 1 if options["down_padding"] == "both" else 0,
        "dropout": options["dropout"],
        "act_fn": "silu",
        "attention_head_dim": _head_dim(options, widths, attention),
        "norm_num_groups": groups,
        "attn_norm_num_groups": groups
        if (middle, modulation) == ("normed", "scale_shift")
        else None,
        "norm_eps": options["norm_eps"],
        "resnet_time_scale_shift": "default" if modulation == "add" else "scale_shift",
        "add_attention": middle != "none",
        "num_class_embeds": model.label_dim or None,
        **_blocks(options, attention),
    }


def _embedding(emb_channels: int | None, width: int) -> dict[str, Any]:
    """The width of the embedding, which older releases of the library do not take."""
    is_usual = emb_channels in (None, 4 * width)
    return {} if is_usual else {"time_embedding_dim": emb_channels}


def _head_dim(options: Mapping[str, Any], widths: list[int], attention: list[bool]) -> int | None:
    """Channels of every attention's heads, None for one head everywhere."""
    num_heads, head_dim = options["num_heads"], options["head_dim"]

    def heads(width: int) -> int:
        if num_heads and head_dim and num_heads * head_dim != width:
            raise _cannot(f"{num_heads} heads of {head_dim} channels over {width}")
        return num_heads or width // (head_dim or 64)

    found = {(width, heads(width)) for width, has in zip(widths, attention, strict=True) if has}
    if options["middle_attention"] != "none":
        is_one = options["middle_heads"] == "one"
        found.add((widths[-1], 1 if is_one else heads(widths[-1])))
    if all(num == 1 for _, num in found):
        return None
    dims = sorted({width // num for width, num in found})
    if len(dims) > 1:
        raise _cannot(f"attention heads of different widths, {' and '.join(map(str, dims))}")
    return dims[0]


def _blocks(options: Mapping[str, Any], attention: list[bool]) -> dict[str, Any]:
    """The types of blocks, and how levels with attention are left."""
    plain, attended = options["resampler"], options["attn_resampler"] or options["resampler"]
    downs, ups = attention[:-1], attention[1:]  # levels that are left, down and up
    used = {attended if has else plain for has in (*downs, *ups)}
    if "pool" in used:
        raise _cannot("the resampler pool: only conv and block")
    kinds = {ours: name for name, ours in RESAMPLERS.items()}
    left = kinds[attended] if any((*downs, *ups)) else "conv"

    def types(flags: list[bool], is_left: list[bool], side: str) -> list[str]:
        rows = []
        for has, leaves in zip(flags, is_left, strict=True):
            is_block = leaves and not has and plain == "block"
            name = f"{side}Block2D" if not is_block else f"Resnet{side}sampleBlock2D"
            rows.append(f"Attn{name}" if has else name)
        return rows

    is_left = [True] * len(downs) + [False]
    return {
        "down_block_types": types(attention, is_left, "Down"),
        "up_block_types": types(attention[::-1], is_left, "Up"),
        "downsample_type": left,
        "upsample_type": left,
    }


def _scheduler_config(
    preconditioning: Preconditioning, info: SnapshotInfo
) -> tuple[dict[str, Any], list[str]]:
    """The config of the scheduler, and what it cannot keep."""
    chosen = preconditioning
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if chosen.output not in predictions or chosen.unused_multiple != 1:
        raise _cannot(f"a network that predicts {chosen.output}")
    if (chosen.input_scale, chosen.conditioning) != ("variance_preserving", "step"):
        raise _cannot(f"input_scale {chosen.input_scale} and conditioning {chosen.conditioning}")
    table = chosen.table
    if table is None:
        raise _cannot("a schedule that is continuous")
    given = info.sampling
    name = given.get("name", "none")
    notes = []
    if name not in ("ddim", "ddpm"):
        notes.append(f"the folder does not keep the sampler {name}: it has DDPMScheduler")
    is_ddim, is_dynamic = name == "ddim", given.get("clip") == "dynamic"
    config = {
        "_class_name": "DDIMScheduler" if is_ddim else "DDPMScheduler",
        "_diffusers_version": _VERSION,
        **_betas(table, info.model.preconditioning.schedule),
        "prediction_type": predictions[chosen.output],
        "clip_sample": bool(given.get("clip") or given.get("clip_x0")),
        "clip_sample_range": 1.0,
        "thresholding": is_dynamic,
        **({"sample_max_value": UNBOUNDED} if is_dynamic else {}),
        "rescale_betas_zero_snr": False,
        "steps_offset": given.get("offset", 0),
    }
    if is_ddim:
        config["set_alpha_to_one"] = True
        if given.get("clip"):
            notes.append("the library's DDIM clips the image, but not the direction of the noise")
    else:
        variance = given.get("variance", "small") if name == "ddpm" else "small"
        config["variance_type"] = "fixed_large" if variance == "large" else "fixed_small"
        if variance == "interpolated":
            notes.append("the folder does not keep variance interpolated: it has fixed_small")
    spacing = given.get("spacing", "exact" if name in ("ddim", "ddpm") else "leading")
    if spacing not in _SPACINGS and spacing != "all":
        notes.append(f"the folder does not keep the spacing {spacing}: it has trailing")
    config["timestep_spacing"] = _SPACINGS.get(
        spacing, "leading" if spacing == "all" else "trailing"
    )
    steps = given.get("steps")
    if steps is not None and steps != _FULL:
        notes.append(f"the folder does not keep the steps: give num_inference_steps={steps}")
    return config, notes


def _betas(table: Table, entry: Any) -> dict[str, Any]:
    """The keys of the betas: by name if the library has it, else one by one."""
    num = table.num_steps
    name, given = (entry, {}) if isinstance(entry, str) else (None, {})
    if entry is None:
        name = "beta_linear"  # that of the preset
    elif not isinstance(entry, str):
        name, given = entry["name"], {k: v for k, v in entry.items() if k != "name"}
    names = {ours: theirs for theirs, ours in SCHEDULE_NAMES.items()}
    is_default = name != "beta_cosine" or not given.keys() - {"num_steps"}
    if name in names and is_default:
        return {
            "num_train_timesteps": num,
            "beta_schedule": names[name],
            "beta_start": given.get("beta_start", 1e-4),
            "beta_end": given.get("beta_end", 0.02),
            "trained_betas": None,
        }
    if name == "beta_list":
        betas = list(given["betas"])
    else:
        variance = table.levels**2
        kept = (variance[1:] - variance[:-1]) / (1 + variance[1:])
        betas = [float(variance[0] / (1 + variance[0])), *kept.tolist()]
    return {"num_train_timesteps": num, "trained_betas": betas}
