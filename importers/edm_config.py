"""EDM's constructor arguments in our terms: a wrapper and its network become a model config."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from importers.edm_pickle import Module, argument, plain
from models.config import ModelConfig
from torch_utils.errors import UserError
from torch_utils.numbers import is_number
from torch_utils.pickle_rules import brief
from torch_utils.registry import Row
from torch_utils.sections import validated

_STEPS = 1000  # of a VP model's time: our step counts so many


@dataclass(frozen=True)
class Wrapper:
    """One of EDM's preconditionings.

    Attributes:
        preset: our name.
        constants: arguments of its constructor with their defaults, in their order.
        network: the class of its network, unless the pickle says another.
    """

    preset: str
    constants: Mapping[str, Any]
    network: str


WRAPPERS: dict[str, Wrapper] = {
    "VPPrecond": Wrapper(
        "vp", {"beta_d": 19.9, "beta_min": 0.1, "M": _STEPS, "epsilon_t": 1e-5}, "SongUNet"
    ),
    "VEPrecond": Wrapper("ve", {"sigma_min": 0.02, "sigma_max": 100.0}, "SongUNet"),
    "iDDPMPrecond": Wrapper("iddpm", {"C_1": 0.001, "C_2": 0.008, "M": _STEPS}, "DhariwalUNet"),
    "EDMPrecond": Wrapper(
        "edm", {"sigma_min": 0.0, "sigma_max": math.inf, "sigma_data": 0.5}, "DhariwalUNet"
    ),
}
# what every wrapper has first; 0 stands for a size that has no default
_SIZES = {"img_resolution": 0, "img_channels": 0, "label_dim": 0, "use_fp16": False}
_SHARED = {"channel_mult_emb": 4, "dropout": 0.1, "label_dropout": 0.0, "augment_dim": 0}
NETWORKS: dict[str, dict[str, Any]] = {
    "SongUNet": {
        "model_channels": 128,
        "channel_mult": [1, 2, 2, 2],
        "num_blocks": 4,
        "attn_resolutions": [16],
        "embedding_type": "positional",
        "channel_mult_noise": 1,
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": [1, 1],
        **_SHARED,
    },
    "DhariwalUNet": {
        "model_channels": 192,
        "channel_mult": [1, 2, 3, 4],
        "num_blocks": 3,
        "attn_resolutions": [32, 16, 8],
        **_SHARED,
    },
}
_MAX_NAME = 100
_HEAD_CHANNELS = 64  # of the attention of DhariwalUNet


@dataclass(frozen=True)
class Described:
    """What a wrapper's arguments and attributes say.

    Attributes:
        config: the model.
        label_dropout: probability of the null label in training.
        use_fp16: whether the network was made for half precision.
        notes: what was read in a way that one might not expect.
    """

    config: ModelConfig
    label_dropout: float
    use_fp16: bool
    notes: tuple[str, ...]


def describe(root: Module) -> Described:
    """Read the arguments of a wrapper.

    Raises:
        UserError: it is not one of the four, or has an argument that is unknown or unusable.
    """
    name = root.class_name
    if name not in WRAPPERS:
        raise UserError(f"it holds a {name!r}, not one of {', '.join(WRAPPERS)}")
    wrapper = WRAPPERS[name]
    given = _arguments(root, wrapper)
    kind = given.setdefault("model_type", wrapper.network)
    if not isinstance(kind, str) or kind not in NETWORKS:
        said = brief(kind) if isinstance(kind, str) else f"of type {brief(kind)}"
        raise UserError(f"its model_type is {said}, not one of {', '.join(NETWORKS)}")
    known = {**_SIZES, **wrapper.constants, "model_type": "", **NETWORKS[kind]}
    row = Row(target="", options=known, ranges={"label_dropout": (0, 1)})
    values = row.resolve(name, given)
    network, notes = _network(kind, {key: values[key] for key in NETWORKS[kind]}, values)
    tree = {
        "network": network,
        "preconditioning": _preconditioning(root, wrapper, values),
        "img_resolution": [values["img_resolution"]] * 2,
        **{key: values[key] for key in ("img_channels", "label_dim", "augment_dim")},
    }
    config = validated(ModelConfig, tree, name)
    return Described(config, values["label_dropout"], values["use_fp16"], tuple(notes))


def _arguments(root: Module, wrapper: Wrapper) -> dict[str, Any]:
    """Arguments of the constructor by name."""
    args, kwargs = root.state.get("_init_args"), root.state.get("_init_kwargs")
    if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
        raise UserError(f"its {root.class_name} does not say how it was made (_init_kwargs)")
    names = [*_SIZES, *wrapper.constants, "model_type"]
    if len(args) > len(names):
        raise UserError(f"its {root.class_name} was made with {len(args)} arguments")
    given = dict(zip(names, args, strict=False))
    for key, value in kwargs.items():
        if not isinstance(key, str) or len(key) > _MAX_NAME:
            raise UserError(f"its {root.class_name} was made with an argument without a name")
        if key in given:
            raise UserError(f"its {root.class_name} was made with the argument {key!r} twice")
        given[key] = value
    return {key: argument(key, value) for key, value in given.items()}


def _network(
    kind: str, options: dict[str, Any], values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Our entry of the network, and notes."""
    options = {k: v for k, v in options.items() if k not in ("augment_dim", "label_dropout")}
    if kind == "SongUNet":
        is_ncsnpp = options["embedding_type"] == "fourier" or options["encoder_type"] == "residual"
        return {"name": "ncsnpp" if is_ncsnpp else "ddpmpp", **options}, []
    kept = _with_heads(options, values["img_resolution"])
    lost = [size for size in options["attn_resolutions"] if size not in kept]
    notes = [f"it has no attention at {size} pixels: too few channels for a head" for size in lost]
    return {"name": "adm", **options, "attn_resolutions": kept}, notes


def _with_heads(options: Mapping[str, Any], resolution: int) -> list[Any]:
    """Resolutions with attention, without levels too narrow for a head, where EDM leaves it out."""
    unit, narrow = options["model_channels"], set()
    for level, mult in enumerate(options["channel_mult"]):
        if isinstance(mult, int) and unit * mult < _HEAD_CHANNELS:
            narrow.add(resolution >> level)
    return [size for size in options["attn_resolutions"] if size not in narrow]


def _preconditioning(root: Module, wrapper: Wrapper, values: Mapping[str, Any]) -> dict[str, Any]:
    """Our section of the preconditioning, with the range of noise levels that the pickle has.

    The range is taken as stored: published ones of VP and improved DDPM were computed in float32.
    """
    section: dict[str, Any] = {"name": wrapper.preset}
    for key in ("sigma_min", "sigma_max"):
        level = plain(root.state.get(key, values.get(key)))
        if level is None:
            continue
        if not is_number(level) or math.isnan(level):
            raise UserError(f"its {root.class_name} has a {key} that is not a number")
        if level < math.inf:  # without it there is no bound
            section[key] = float(level)
    if "sigma_data" in values:
        section["sigma_data"] = values["sigma_data"]
    constants = {k: v for k, v in wrapper.constants.items() if not k.startswith("sigma")}
    if all(values[key] == default for key, default in constants.items()):
        return section
    if wrapper.preset == "iddpm":
        names = {"num_steps": "M", "c_1": "C_1", "c_2": "C_2"}
        section["schedule"] = {"name": "iddpm", **{k: values[v] for k, v in names.items()}}
    else:
        if values["M"] != _STEPS:
            raise UserError(f"its VPPrecond has M {values['M']}: only {_STEPS} is known")
        section["schedule"] = {"name": "vp", **{k: values[k] for k in ("beta_d", "beta_min")}}
    return section
