"""The keys by which each family's config describes a model, and ours for them.

Options of networks with another name here are in the table of spellings. KEYS adds the keys of
sizes, and options with the same name here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from diffusion import SCHEDULES
from importers.spellings import renamed
from networks import check_sizes
from torch_utils.errors import UserError, unknown_name

_SYSTEMS = {"sa-dpm": "SA-DPM", "v-diffusion": "v-diffusion", "ddpm-xyf": "DDPM implementation"}
_OWN_KEYS: dict[str, dict[str, str]] = {
    "sa-dpm": {
        "image_size": "img_resolution",
        "in_channels": "img_channels",
        "out_ch": "out_channels",
        "attn_resolutions": "attn_resolutions",
        "dropout": "dropout",
    },
    "v-diffusion": {
        "resolution": "img_resolution",
        "in_channels": "img_channels",
        "out_channels": "out_channels",
        "num_classes": "label_dim",
        "num_heads": "num_heads",
        "head_dim": "head_dim",
    },
    "ddpm-xyf": {
        "resolution": "img_resolution",
        "img_size": "img_resolution",
        "img_channels": "img_channels",
        "in_channels": "img_channels",
        "out_channels": "out_channels",
        "num_classes": "label_dim",
        "dropout": "dropout",
    },
}

KEYS = {
    family: {**own, **renamed(_SYSTEMS[family], "network")} for family, own in _OWN_KEYS.items()
}

# the key that names the schedule, and those of its options: published -> ours
SCHEDULE_KEYS: dict[str, tuple[str, dict[str, str]]] = {
    "sa-dpm": (
        "beta_schedule",
        {
            "num_diffusion_timesteps": "num_steps",
            "beta_start": "beta_start",
            "beta_end": "beta_end",
        },
    ),
    "v-diffusion": (
        "logsnr_schedule",
        {"logsnr_min": "logsnr_min", "logsnr_max": "logsnr_max"},
    ),
    "ddpm-xyf": (
        "beta_schedule",
        {"total_steps": "num_steps", "beta_start": "beta_start", "beta_end": "beta_end"},
    ),
}

_BETAS = {name: f"beta_{name}" for name in ("linear", "quad", "const")}
SCHEDULE_NAMES: dict[str, dict[str, str]] = {
    "sa-dpm": _BETAS | {"jsd": "beta_jsd", "sigmoid": "beta_sigmoid"},
    "v-diffusion": {
        "cosine": "logsnr_cosine",
        "linear": "logsnr_alpha2_linear",
        "sigmoid": "logsnr_linear",
        "legacy": "logsnr_legacy",
    },
    "ddpm-xyf": _BETAS | {"cosine": "beta_cosine"},
}

PREDICTION_KEYS = {"v-diffusion": "model_out_type", "ddpm-xyf": "objective"}
PREDICTION_NAMES = {
    "both": "x0_eps",
    "x_0": "x0",
    "pred_eps": "eps",
    "pred_x0": "x0",
    "pred_v": "v",
}

# parts of published config files that describe a model; others are about training
SECTIONS = ("data", "model", "diffusion")
# keys of a section that do not describe the model: a data set may have classes although the model
# has no labels
OF_DATA_ALONE = {"data": {"num_classes"}}


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """A published config file without its sections, and without `params` inside them.

    A mapping without such sections is returned as it is.
    """
    nested = {key for key in SECTIONS if isinstance(config.get(key), Mapping)}
    if not nested:
        return dict(config)
    flat: dict[str, Any] = {}
    for section in SECTIONS:
        if section in nested:
            params = config[section].get("params")
            said = {**config[section], **(params if isinstance(params, Mapping) else {})}
            passed_over = {"params"} | OF_DATA_ALONE.get(section, set())
            flat |= {k: v for k, v in said.items() if k not in passed_over}
    kept = {k: v for k, v in config.items() if k == "schedule" or not isinstance(v, Mapping)}
    return flat | kept


def _at_levels(flags: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """One flag a level, finest first, as resolutions; nothing if the resolution is not given."""
    if not isinstance(flags, list) or not all(flag in (0, 1) for flag in flags):
        raise UserError(f"attention is given as {flags!r}: give true or false for each level")
    if "img_resolution" not in config:
        return {}
    side = max(check_sizes(img_resolution=config["img_resolution"]))
    return {"attn_resolutions": [side >> level for level, flag in enumerate(flags) if flag]}


# keys whose value changes along with the name: (value, ours so far) -> more of ours
RULES: dict[str, dict[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]]] = {
    "sa-dpm": {"resamp_with_conv": lambda flag, _: {"resampler": "conv" if flag else "pool"}},
    "v-diffusion": {"apply_attn": _at_levels},
    "ddpm-xyf": {
        "use_attn": _at_levels,
        "resblock_updown": lambda flag, _: {"resampler": "block" if flag else "conv"},
    },
}


def published_keys(family: str) -> set[str]:
    """All keys of a family that `translate` reads."""
    name, bounds = SCHEDULE_KEYS[family]
    prediction = {PREDICTION_KEYS[family]} if family in PREDICTION_KEYS else set()
    return {*KEYS[family], *RULES[family], name, *bounds, *prediction}


def translate(
    family: str, config: Mapping[str, Any], ours: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A family's own description of its model, as the config of `import_network`.

    Args:
        family: a name in `importers.families.FAMILIES`.
        config: published key -> value; null counts as not given, and keys that are not about the
            model are ignored.
        ours: our key -> value, given beside it.

    Returns:
        Our key -> value, `ours` included.

    Raises:
        UserError: no family has this name, or two keys contradict each other.
    """
    if family not in KEYS:
        raise unknown_name("family", family, KEYS)
    given = {key: value for key, value in config.items() if value is not None}
    merged = {key: value for key, value in (ours or {}).items() if value is not None}

    def add(key: str, found: Mapping[str, Any]) -> None:
        for name, value in found.items():
            if name in merged and merged[name] != value:
                raise UserError(f"{key} says that {name} is {value!r}, not {merged[name]!r}")
            merged[name] = value

    for key, name in KEYS[family].items():
        if key in given and key not in RULES[family]:
            add(key, {name: given[key]})
    for key, rule in RULES[family].items():
        if key in given:
            add(key, rule(given[key], merged))
    key, bounds = SCHEDULE_KEYS[family]
    if key in given:
        schedule = SCHEDULE_NAMES[family].get(str(given[key]), str(given[key]))
        options = SCHEDULES[schedule].options if schedule in SCHEDULES else {}
        said = {name: given[key] for key, name in bounds.items() if key in given}
        said = {name: value for name, value in said.items() if name in options}
        add(key, {"schedule": {"name": schedule, **said}})
    key = PREDICTION_KEYS.get(family, "")
    if key in given:
        add(key, {"prediction": PREDICTION_NAMES.get(str(given[key]), given[key])})
    return merged
