"""What users of the DDPM families expect of a model that nobody tells how to sample it.

The sampler of each system with the settings that its programs have by default, or that the config
of the run names. The result is a snapshot's `sampling:` section.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from importers.families import Imported
from importers.spellings import VALUES
from torch_utils.errors import UserError, unknown_name

# keys of published configs that are about sampling, or about training alone
KEYS: Mapping[str, frozenset[str]] = {
    "sa-dpm": frozenset({"var_type", "timesteps", "eta", "skip_type", "ema_rate", "batch_size"}),
    "v-diffusion": frozenset(
        {
            *("sample_timesteps", "model_var_type", "intp_frac", "w_guide", "use_ddim"),
            *("allow_rescale", "x0eps_coef", "train_timesteps", "p_uncond", "use_cfg"),
            *("ema_decay", "batch_size"),
        }
    ),
    "ddpm-xyf": frozenset(
        {"var_type", "clip_denoised", "p_uncond", "ema_decay", "ema_gradual", "batch_size"}
    ),
}
_SPACINGS = {"uniform": "leading", "quad": "quad"}
_DEFAULT_STEPS = {"sa-dpm": 1000, "v-diffusion": 256}


def everywhere(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a published config without its sections; those of outer ones come last."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and key != "schedule":
            flat |= everywhere(value)
    return flat | {k: v for k, v in config.items() if not isinstance(v, Mapping) and v is not None}


def sampling_of(family: str, found: Imported, said: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler settings for a model.

    Args:
        family: a name in `importers.families.FAMILIES`.
        found: the model.
        said: what is known of the run, `everywhere` of a side file.

    Raises:
        UserError: the side file has a value that cannot be.
    """
    levels = found.settings["schedule"].get("num_steps")
    if family == "sa-dpm":
        return _sa_dpm(said, levels or _DEFAULT_STEPS[family])
    if family == "v-diffusion":
        return _v_diffusion(said, has_labels=bool(found.sizes["label_dim"]))
    return _ddpm_xyf(said, levels or 1000, has_labels=bool(found.sizes["label_dim"]))


def notes_of(family: str, found: Imported, said: Mapping[str, Any]) -> Iterator[str]:
    """Lines about a run that was made in a way that cannot be repeated exactly here.

    Raises:
        UserError: the network was told other times than can be told here.
    """
    if family == "v-diffusion" and said.get("allow_rescale") and not said.get("train_timesteps"):
        schedule = found.settings["schedule"]["name"]
        if schedule == "logsnr_alpha2_linear":
            raise UserError(
                "allow_rescale told the network alpha squared instead of the time, which has no"
                " counterpart here"
            )
        if schedule == "logsnr_cosine":
            yield "allow_rescale: the network's times differ from the trained ones by up to 3e-5"
    if family == "ddpm-xyf" and str(said.get("var_type", "")).startswith("learned"):
        yield f"var_type {said['var_type']}: sampled with variance small, the learned one is unused"


def _sa_dpm(said: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """sample_type generalized, skip_type uniform, eta 0: DDIM over all steps."""
    spacing = str(said.get("skip_type", "uniform"))
    if spacing not in _SPACINGS:
        raise unknown_name("skip_type", spacing, _SPACINGS)
    return {
        "name": "ddim",
        "steps": min(said.get("timesteps", levels), levels),
        "eta": float(said.get("eta", 0.0)),
        "spacing": _SPACINGS[spacing],
    }


def _v_diffusion(said: Mapping[str, Any], *, has_labels: bool) -> dict[str, Any]:
    """x0 is clipped in each call, and both estimates are clipped before they are guided."""
    steps = said.get("sample_timesteps", _DEFAULT_STEPS["v-diffusion"])
    sampling: dict[str, Any] = {"name": "ddpm", "steps": steps, "clip": True}
    if said.get("use_ddim"):
        sampling |= {"name": "ddim", "eta": 0.0}
    else:
        sampling["variance"] = _variance(said, "model_var_type")
        if sampling["variance"] == "interpolated":
            sampling["fraction"] = float(said.get("intp_frac", 0.0))
    if has_labels:
        sampling["guidance"] = {"w": float(said.get("w_guide", 0.0)), "clip": "before"}
    return sampling


def _ddpm_xyf(said: Mapping[str, Any], levels: int, *, has_labels: bool) -> dict[str, Any]:
    """All steps; a guidance scale has to be given, and then both estimates and the sum are clipped.

    The variance is the one with which its CIFAR-10 model is published, unless a config names it.
    """
    sampling: dict[str, Any] = {
        "name": "ddpm",
        "steps": levels,
        "variance": _variance(said, "var_type"),
        "clip": bool(said.get("clip_denoised", True)),
    }
    if has_labels:
        sampling["guidance"] = {"scale": 1.0, "clip": "both"}
    return sampling


def _variance(said: Mapping[str, Any], key: str) -> str:
    name = str(said.get(key, "fixed_large"))
    if name.startswith("learned"):
        return "small"
    ours = VALUES["variance"]
    if name not in (*ours, *ours.values()):
        raise unknown_name(key, name, ours)
    return ours.get(name, name)
