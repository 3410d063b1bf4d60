"""What a run trains, for people: the config with what it leaves open filled in, and numbers.

The text is a recipe that trains the same run.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from diffusion.denoiser import Denoiser
from diffusion.preconditioning import PRESETS
from losses import NOISE_LEVELS, PUBLISHED_OBJECTIVES, TERMS, WEIGHTS
from networks import NETWORKS
from torch_utils.registry import Row, split_name
from training.config import ResolvedConfig, TrainingConfig
from training.data import TrainingData
from training.labels import labels_of
from training.preview import plan_preview


def shown(config: ResolvedConfig, data: TrainingData, blank: Denoiser) -> str:
    """A recipe of the run, with comments.

    Args:
        config: of the run.
        data: what it is trained on.
        blank: the model; its weights are not read.
    """
    tree = config.model_dump(mode="json")
    tree["network"] = _filled(NETWORKS, tree["network"])
    _complete(tree["preconditioning"], _of_preset(config, blank))
    loss, published = tree["loss"], PUBLISHED_OBJECTIVES[config.preconditioning.name]
    _complete(
        loss, {key: getattr(published, key) for key in ("noise_level", "weight", "reduction")}
    )
    loss["noise_level"] = _filled(NOISE_LEVELS, loss["noise_level"], sampling="independent")
    loss["weight"] = _filled(WEIGHTS, loss["weight"], sigma_data=blank.preconditioning.sigma_data)
    loss["terms"] = [_filled(TERMS, term) for term in loss["terms"]]
    if config.preview.enabled:
        preview = plan_preview(config.preview, config.sampler, blank, labels_of(data))
        steps = preview.sampling.settings.steps
        every, num = tree["run"]["snap"], len(preview.samples)
        _complete(tree["preview"], {"every": every, "num_images": num, "steps": steps})
    defaults = TrainingConfig().model_dump()
    for name in tree.keys() - {"network", "sampler"}:
        tree[name] = _without_open_ends(tree[name], defaults[name])
    lines = "".join(f"# {line}\n" for line in _numbers(config, data, blank))
    return lines + yaml.safe_dump(tree, sort_keys=False)


def _numbers(config: ResolvedConfig, data: TrainingData, blank: Denoiser) -> Iterator[str]:
    yield f"{sum(weights.numel() for weights in blank.parameters()):,} parameters"
    channels, height, width = data.image_shape
    labels = "no labels"
    if config.data.cond:
        kind = {"class": "classes", "multi_hot": "tags", "vector": "numbers as labels"}
        labels = f"{data.label_dim:,} {kind[data.label_kind or 'vector']}"
    yield f"{len(data):,} images of {height}x{width} with {channels} channel(s), {labels}"
    steps = -(-config.run.duration // config.run.batch)
    yield f"{steps:,} steps of {config.run.batch:,} images"


def _of_preset(config: ResolvedConfig, blank: Denoiser) -> dict[str, Any]:
    """The parts of the preconditioning that a recipe may set."""
    parts = blank.preconditioning
    found: dict[str, Any] = {"sigma_min": parts.sigma_min}
    if parts.sigma_max < float("inf"):
        found["sigma_max"] = parts.sigma_max
    if parts.uses_sigma_data:
        found["sigma_data"] = parts.sigma_data
    row = PRESETS[config.preconditioning.name]
    if not row.is_fixed:
        for key in ("output", "input_scale", "conditioning"):
            found[key] = getattr(parts, key)
        if parts.uses_schedule:
            found["schedule"] = row.options["schedule"]
        if parts.table is not None:
            found["quantize"] = parts.quantize
    return found


def _complete(section: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Put in what a section leaves open."""
    section.update({key: value for key, value in found.items() if section[key] is None})


def _filled(
    table: Mapping[str, Row], entry: str | Mapping[str, Any], **defaults: Any
) -> dict[str, Any]:
    """An entry with all options of its row; `defaults` take the place of the row's."""
    name, given = split_name("entry", entry)
    options = dict(table[name].options)
    options |= {key: value for key, value in defaults.items() if key in {*options, "sampling"}}
    filled = _without_open_ends({"name": name, **options, **given}, options)
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in filled.items()
    }


def _without_open_ends(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without keys that are None by default; None in place of a default is a choice."""
    return {
        key: value
        for key, value in tree.items()
        if value is not None or defaults.get(key) is not None
    }
