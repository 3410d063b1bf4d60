"""Adapters from golden cases to Driftless, one function a kind; each returns the case's error."""

import io
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

import networks
from data import augment
from data.archive import ImageArchive
from diffusion.denoiser import Denoiser
from diffusion.preconditioning import PRESETS
from diffusion.tables import beta_linear
from importers.families import import_network
from importers.published import translate
from losses.batch import Batch, Draws
from losses.levels import Discrete, UniformTime
from losses.objective import Objective
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from networks import NETWORKS
from samplers.settings import SamplerSettings, settings_from
from tests.closed_form import GaussianMixture
from tests.importers import foreign
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.weights import fill_by_rule
from torch_utils.distributed import World
from training.config import TrainingConfig, resolve
from training.setup import create_objective
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]

PRECONDITIONINGS = {
    "EDMPrecond": "edm",
    "VPPrecond": "vp",
    "VEPrecond": "ve",
    "iDDPMPrecond": "iddpm",
}
NETWORK_OPTIONS = ("model_channels", "channel_mult", "num_blocks", "attn_resolutions", "dropout")


def denoiser_config(spec: dict[str, Any]) -> ModelConfig:
    """Our config for a network under its published names."""
    precond = PRECONDITIONINGS[spec["precond"]]
    if precond not in PRESETS:
        raise NotBuilt(f"preconditioning {precond}")
    if spec["arch"] not in NETWORKS:
        raise NotBuilt(f"network {spec['arch']}")
    keys = ("sigma_min", "sigma_max")
    sigma_range = {key: spec[key] for key in keys if spec.get(key, "inf") != "inf"}
    return ModelConfig(
        network={"name": spec["arch"], **{key: spec[key] for key in NETWORK_OPTIONS}},
        preconditioning=PreconditioningConfig(name=precond, **sigma_range),
        img_resolution=(spec["img_resolution"], spec["img_resolution"]),
        img_channels=spec["img_channels"],
        label_dim=spec["label_dim"],
        augment_dim=spec["augment_dim"],
    )


def networks_edm(case: Case) -> float:
    """The denoiser's output with weights filled by rule."""
    denoiser = build(denoiser_config(case.spec)).eval()
    shapes = {name: list(t.shape) for name, t in denoiser.state_dict().items()}
    if shapes != case.spec["state_shapes"]:
        raise AssertionError("state-dict names or shapes differ from the published ones")
    fill_by_rule(denoiser)
    given = {
        name: torch.from_numpy(case.arrays[f"{case.name}/{name}"])
        for name in ("x", "sigma", "labels", "augment_labels")
        if f"{case.name}/{name}" in case.arrays
    }
    with torch.no_grad():
        denoised = denoiser(**given)
    return relative_error(denoised.numpy(), case.arrays[f"{case.name}/D"])


def networks_ddpm(case: Case) -> float:
    """The raw output of an imported network, its foreign weights filled by rule."""
    spec = case.spec
    weights = {name: torch.zeros(shape) for name, shape in spec["state_shapes"].items()}
    fill_by_rule(weights)
    config = translate(spec["family"], flat(spec["config"]))
    x, c_noise, golden = (
        torch.from_numpy(case.arrays[f"{case.name}/{name}"]) for name in ("x", "t", "out")
    )
    # The raw output does not depend on what it means, but an import has to be told.
    config["schedule"] = "linear"
    if spec["family"] != "v-diffusion" or golden.shape[1] == x.shape[1]:
        config["prediction"] = "eps"
    if not {"num_heads", "head_dim"} & config.keys():
        config["num_heads"] = 1  # the published default
    imported = import_network(weights, config)
    options = dict(imported.network)
    network = networks.create(options.pop("name"), **imported.sizes, **options).eval()
    network.load_state_dict(imported.state_dict)
    if spec["family"] == "v-diffusion":
        c_noise = 1000 * c_noise
    labels = mask = None
    if f"{case.name}/y" in case.arrays:
        labels, mask = published_labels(case.arrays[f"{case.name}/y"], imported.sizes["label_dim"])
    with torch.no_grad():
        output = network(x, c_noise, labels, mask)
    return relative_error(output.numpy(), golden.numpy())


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a config and of its sections, under their last names."""
    entries: dict[str, Any] = {}
    for key, value in config.items():
        entries |= flat(value) if isinstance(value, dict) else {key: value}
    return entries


def published_labels(y: np.ndarray, label_dim: int) -> tuple[Tensor, Tensor]:
    """One-hot or multi-hot labels and their mask from classes that start at 1, or from tags."""
    if y.ndim == 1:
        labels = np.eye(label_dim + 1, dtype=np.float32)[y][:, 1:]
    else:
        labels = y.astype(np.float32)
    return torch.from_numpy(labels), torch.from_numpy(labels.any(axis=1))


def mixture(case: Case) -> GaussianMixture:
    """The closed-form denoiser that a file of cases shares."""
    spec = case.document["denoiser"]
    means = torch.from_numpy(case.arrays[spec["means"]]) * spec.get("means_scale", 1.0)
    return GaussianMixture(means, spec["std"])


class Tape:
    """Noise from a fixed tape: call number i returns entry i, around and around."""

    def __init__(self, seed: int, shape: list[int]) -> None:
        self.entries = np.random.RandomState(seed).standard_normal(shape)
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        entry = self.entries[self.calls % len(self.entries)]
        self.calls += 1
        return torch.from_numpy(entry).to(like)


# published names of samplers whose state starts as that of EDM -> the flat form of our settings
SAMPLERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "edm": lambda args: {"name": "heun", **args},
    "ablation": lambda args: {"name": "ablation", **args},
    "backward_sde": lambda args: {
        "name": "reverse_sde",
        "corrector": "published" if args.pop("second_order", False) else "none",
        "last_step": "published",
        **args,
    },
    "second_order_published": lambda args: {"name": "ito_taylor", "scheme": "published", **args},
}
VARIANCES = {"fixed_small": "small", "fixed_large": "large", "fixed_medium": "interpolated"}
LOG_SNR = {
    "cosine": "logsnr_cosine",
    "linear": "logsnr_alpha2_linear",
    "sigmoid": "logsnr_linear",
    "legacy": "logsnr_legacy",
}


def samplers(case: Case) -> float:
    """A sampler on the closed-form denoiser, its noise from the tape."""
    name, args = case.spec["sampler"], dict(case.spec["args"])
    preserves_variance = name in ("ddim", "ddpm", "log_snr")
    if preserves_variance:
        settings, sigmas = preserving_sampler(case)
    elif name in SAMPLERS:
        steps = {"steps": args.pop("num_steps")} if "num_steps" in args else {}
        settings = settings_from({**SAMPLERS[name](args), **steps})
        sigmas = settings.sigmas(0.0, math.inf, float)
    else:
        raise NotBuilt(f"sampler {name}")
    latents = torch.from_numpy(case.arrays[case.document["latents"]])
    scale = math.hypot(1, sigmas[0]) if preserves_variance else sigmas[0]
    denoise = mixture(case)
    is_clipped = args.get("clip_denoised", False)
    result = settings.bound()(
        (lambda x, sigma: denoise(x, sigma).clamp(-1, 1)) if is_clipped else denoise,
        latents * scale,
        sigmas,
        noise=Tape(**case.document["tape"]),
    )
    return relative_error(result.numpy(), case.arrays[case.name])


def preserving_sampler(case: Case) -> tuple[SamplerSettings, list[float]]:
    """The sampler and the noise levels of a case from a variance-preserving family."""
    args = case.spec["args"]
    is_ddim = "ddim" in (case.spec["sampler"], args.get("sampler"))
    if is_ddim:
        chosen = {"name": "ddim", "eta": args.get("eta", 0.0)}
    else:
        variance = VARIANCES[args["variance"]]
        chosen = {"name": "ddpm", "variance": variance, "fraction": args.get("intp_frac")}
    if case.spec["sampler"] == "log_snr":
        levels = {"name": LOG_SNR[args["logsnr_schedule"]]}
        if levels["name"] != "logsnr_legacy":
            levels |= {key: args[key] for key in ("logsnr_min", "logsnr_max") if key in args}
        settings = settings_from({**chosen, "steps": args["timesteps"], "levels": levels})
        return settings, settings.sigmas(0.0, math.inf, float)
    visited = beta_linear().levels[case.spec["timesteps"]][::-1]  # repetitions included
    return settings_from(chosen), [*visited.tolist(), 0.0]


SCHEDULES = {
    "cosine": "logsnr_cosine",
    "legacy": "logsnr_legacy",
    "linear": "logsnr_alpha2_linear",
    "sigmoid": "logsnr_linear",
}
OUTPUT_NAMES = {"both": "x0_eps", "x_0": "x0", "alpha2": "snr_1plus", "truncated_snr": "snr_trunc"}


def training_losses(case: Case) -> float:
    """An objective on the closed-form denoiser, its draws from the arrays."""
    adapters = {
        "edm": _published_loss,
        "vp": _published_loss,
        "ve": _published_loss,
        "sequence_aware": _sequence_aware_loss,
        "consistency": _consistency_loss,
        "log_snr": _log_snr_loss,
        "vlb": _vlb_loss,
    }
    if case.spec["loss"] not in adapters:
        raise NotBuilt(f"loss {case.spec['loss']}")
    found, golden = adapters[case.spec["loss"]](case).numpy(), case.arrays[f"loss/{case.name}"]
    return relative_error(np.atleast_1d(found), np.atleast_1d(golden))


def objective_of(precond: str, loss: dict[str, Any], **parts: Any) -> Objective:
    """The objective of a recipe with these sections."""
    tree = {"preconditioning": {"name": precond, **parts}, "loss": loss}
    return create_objective(TrainingConfig.model_validate(tree))


def _array(case: Case, name: str) -> Tensor:
    return torch.from_numpy(case.arrays[name])


def _published_loss(case: Case) -> Tensor:
    objective = objective_of(case.spec["loss"], {})
    draws = Draws(
        objective.noise_level.sigma(_array(case, case.spec["noise_level_from"])),
        _array(case, "noise"),
    )
    return objective(mixture(case), Batch(_array(case, "y")), draws).values["denoising"]


def _sequence_aware_loss(case: Case) -> Tensor:
    spec = case.spec
    terms = ["denoising", {"name": "sequence_aware", "lambda": spec["lam"], "K": spec["K"]}]
    objective = objective_of("ddpm", {"terms": terms})
    assert isinstance(objective.noise_level, Discrete)
    sigma = torch.from_numpy(objective.noise_level.table.levels[spec["t"]])
    extra = {"noise": _array(case, "extra_noise")}
    draws = Draws(sigma, _array(case, "noise"), terms={"sequence_aware": extra})
    return objective(mixture(case), Batch(_array(case, "y")), draws).total()


def _consistency_loss(case: Case) -> Tensor:
    spec = case.spec
    options = {key: spec[key] for key in ("num_steps", "epsilon_min", "epsilon_max", "sigma_floor")}
    term = {"name": "consistency", "lambda": spec["lam"], "rho": float(spec["rho"]), **options}
    level = {"name": "lognormal", "P_mean": spec["P_mean"], "P_std": spec["P_std"]}
    objective = objective_of("edm", {"noise_level": level, "terms": ["denoising", term]},
                             sigma_data=spec["sigma_data"])  # fmt: skip
    y = _array(case, "y")
    tape = np.random.RandomState(3).standard_normal((12, 2 * y.shape[0], *y.shape[1:]))
    drawn = {
        "window": torch.tensor(spec["eps_u"], dtype=torch.float64),
        "noise": torch.from_numpy(tape[: spec["num_steps"] - 1]),
    }
    sigma = objective.noise_level.sigma(_array(case, "z").flatten())
    draws = Draws(sigma, _array(case, "noise"), terms={"consistency": drawn})
    values = objective(mixture(case), Batch(y), draws).values
    return values["denoising"] + values["consistency"]


def _schedule_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Our entry for a log-SNR schedule under its published name."""
    low, high = map(float, spec["logsnr"])
    bounds = {} if spec["schedule"] == "legacy" else {"logsnr_min": low, "logsnr_max": high}
    return {"name": SCHEDULES[spec["schedule"]], **bounds}


def _log_snr_objective(spec: dict[str, Any], num_steps: int, **loss: Any) -> Objective:
    level = {"name": "uniform_time", "num_steps": num_steps}
    output = OUTPUT_NAMES.get(spec["prediction"], spec["prediction"])
    return objective_of(
        "vdiff", {"noise_level": level, **loss}, schedule=_schedule_of(spec), output=output
    )


def _log_snr_loss(case: Case) -> Tensor:
    spec = case.spec
    weight = OUTPUT_NAMES.get(spec["weight"], spec["weight"])
    objective = _log_snr_objective(spec, 0, weight=weight)
    return _at_times(case, objective, torch.tensor(spec["t"], dtype=torch.float64), "denoising")


def _vlb_loss(case: Case) -> Tensor:
    spec = case.spec
    variance = spec["variance"].removeprefix("fixed_").replace("medium", "interpolated")
    term = {"name": "vlb", "variance": variance, "fraction": spec.get("intp_frac") or 0.0}
    steps = spec["sample_timesteps"]
    objective = _log_snr_objective(spec, steps, terms=[term])
    times = (torch.tensor(spec["t"], dtype=torch.float64) * steps).ceil() / steps
    return _at_times(case, objective, times, "vlb")


def _at_times(case: Case, objective: Objective, times: Tensor, term: str) -> Tensor:
    assert isinstance(objective.noise_level, UniformTime)
    draws = Draws(objective.noise_level.schedule.sigma(times), _array(case, "noise"))
    return objective(mixture(case), Batch(_array(case, "y")), draws).per_sample(term)


def training(case: Case) -> float:
    """Twenty training steps on the tapes: each loss, then averaged and raw weights on a probe."""
    spec = case.spec
    kinds = {"edm": edm_run, "sequence_aware": sequence_aware_run, "log_snr": log_snr_run}
    if spec["loss"] not in kinds:
        raise NotBuilt(f"training with loss {spec['loss']}")
    trainer, draws_of, probe, labels = kinds[spec["loss"]](spec)
    tape = training_tape()
    size = spec.get("micro_batch", spec["batch"])
    found = []
    for step in range(spec["steps"]):
        cuts = [slice(start, start + size) for start in range(0, spec["batch"], size)]
        pairs = [
            (
                Batch(tape["images"][step, cut], tape["labels"][step, cut] if labels else None),
                draws_of(tape, step, cut),
            )
            for cut in cuts
        ]
        found.append(float(trainer.step(pairs)))
    trainer.denoiser.eval()
    with torch.no_grad():
        average, raw = probe(trainer.average, tape), probe(trainer.denoiser, tape)
    kind = "D" if f"{case.name}/ema_D" in case.arrays else "out"
    return max(
        relative_error(np.array(found), case.arrays[f"{case.name}/loss"]),
        relative_error(average.numpy(), case.arrays[f"{case.name}/ema_{kind}"]),
        relative_error(raw.numpy(), case.arrays[f"{case.name}/net_{kind}"]),
    )


DrawsOf = Callable[[dict[str, Tensor], int, slice], Draws]
Probe = Callable[[Denoiser, dict[str, Tensor]], Tensor]
Run = tuple[Trainer, DrawsOf, Probe, bool]


def trainer_of(config: TrainingConfig, denoiser: Denoiser) -> Trainer:
    """A trainer of given weights on the CPU."""
    return Trainer(denoiser, create_objective(config), config, World(0, 1, torch.device("cpu")))


def training_config(spec: dict[str, Any], **sections: Any) -> TrainingConfig:
    """Our config for a golden training case, resolved."""
    optimizer, ema = spec["optimizer"], spec["ema"]
    given = {key: optimizer[key] for key in ("name", "lr", "betas", "eps", "weight_decay")
             if key in optimizer}  # fmt: skip
    given["warmup"] = f"{spec.get('lr_ramp_images', 0)}img"
    if "warmup_steps" in spec:
        given |= {"warmup": f"{spec['warmup_steps'] * spec['batch']}img", "warmup_inclusive": True}
    if "clip_norm" in spec:
        given["clip_norm"] = spec["clip_norm"]
    average: dict[str, Any]
    if "halflife_images" in ema:
        halflife = f"{ema['halflife_images']}img"
        average = {"halflife": halflife, "rampup_ratio": ema["ramp_ratio"]}
    elif "ramp" in ema:
        average = {"kind": "ramp", "decay": ema["decay"]}
    else:
        average = {"kind": "constant", "decay": ema["decay"], "starts": "first_step"}
    run = {
        "batch": spec["batch"],
        "batch_gpu": spec.get("micro_batch", spec["batch"]),
        "duration": f"{spec['steps']}it",
    }
    tree = {"optimizer": given, "ema": average, "run": run, **sections}
    return resolve(TrainingConfig.model_validate(tree), num_images=1, world_size=1)


def edm_run(spec: dict[str, Any]) -> Run:
    """EDM's loss on an EDM network."""
    denoiser = build(denoiser_config(spec["network"]))
    fill_by_rule(denoiser)
    trainer = trainer_of(training_config(spec), denoiser)

    def draws(tape: dict[str, Tensor], step: int, cut: slice) -> Draws:
        sigma = trainer.objective.noise_level.sigma(tape["z"][step, cut].flatten())
        return Draws(sigma, tape["noise"][step, cut])

    def probe(model: Denoiser, tape: dict[str, Tensor]) -> Tensor:
        return model(tape["probe"], torch.tensor([0.5, 5.0]), tape["labels"][0, :2])

    return trainer, draws, probe, True


def imported_denoiser(spec: dict[str, Any], preconditioning: dict[str, Any]) -> Denoiser:
    """A foreign network, its weights filled by rule under its own names, as a denoiser of ours."""
    foreign_config = flat(spec["config"])
    config = {"num_heads": 1, **translate(spec["family"], foreign_config)}
    weights = {name: torch.zeros(shape) for name, shape in foreign_shapes(spec["family"],
               foreign_config).items()}  # fmt: skip
    fill_by_rule(weights)
    # the raw output's meaning is the preconditioning's, but an import has to be told
    imported = import_network(weights, config | {"schedule": "linear", "prediction": "eps"})
    sizes = {key: value for key, value in imported.sizes.items() if key != "out_channels"}
    parts = PreconditioningConfig(**preconditioning)
    denoiser = build(ModelConfig(network=imported.network, preconditioning=parts, **sizes))
    denoiser.model.load_state_dict(imported.state_dict)
    return denoiser


def foreign_shapes(family: str, config: dict[str, Any]) -> foreign.Shapes:
    """Names and shapes of a family's tensors, for a golden case that does not list them."""
    if family == "sa-dpm":
        mult, side = config["ch_mult"], config["image_size"]
        flags = [side >> level in config["attn_resolutions"] for level in range(len(mult))]
        sizes = config["ch"], mult, config["num_res_blocks"], flags
        return foreign.sa_dpm(*sizes, conv=config["resamp_with_conv"], image=config["in_channels"])
    if family == "v-diffusion" and not config["num_classes"]:
        keys = ("hid_channels", "ch_multipliers", "num_res_blocks", "apply_attn")
        return foreign.v_diffusion(*(config[key] for key in keys), out=config["out_channels"])
    raise NotBuilt(f"names of {family}'s tensors")


def raw_probe(c_noise: list[float]) -> Probe:
    """The raw network's output at two times, its input unscaled."""

    def probe(model: Denoiser, tape: dict[str, Tensor]) -> Tensor:
        output: Tensor = model.model(tape["probe"], torch.tensor(c_noise))
        return output

    return probe


def sequence_aware_run(spec: dict[str, Any]) -> Run:
    """SA-DPM's loss on its network; its float32 table of betas."""
    preconditioning = {"name": "ddpm", "schedule": f"beta_{spec['beta_schedule']}"}
    term = {"name": "sequence_aware", "lambda": spec["lam"], "K": spec["K"]}
    config = training_config(
        spec, preconditioning=preconditioning, loss={"terms": ["denoising", term]}
    )
    trainer = trainer_of(config, imported_denoiser(spec["network"], preconditioning))
    level = trainer.objective.noise_level
    assert isinstance(level, Discrete)
    levels = torch.from_numpy(level.table.levels).float()

    def draws(tape: dict[str, Tensor], step: int, cut: slice) -> Draws:
        sigma = levels[tape["timesteps"][step, cut]]
        extra = {"noise": tape["second_noise"][None, step, cut]}
        return Draws(sigma, tape["noise"][step, cut], terms={"sequence_aware": extra})

    return trainer, draws, raw_probe([10.0, 600.0]), False


def log_snr_run(spec: dict[str, Any]) -> Run:
    """v-diffusion's loss on its network."""
    preconditioning = {
        "name": "vdiff",
        "schedule": _schedule_of(spec),
        "output": OUTPUT_NAMES.get(spec["prediction"], spec["prediction"]),
    }
    weight = OUTPUT_NAMES.get(spec["weight"], spec["weight"])
    config = training_config(spec, preconditioning=preconditioning, loss={"weight": weight})
    trainer = trainer_of(config, imported_denoiser(spec["network"], preconditioning))
    level = trainer.objective.noise_level
    assert isinstance(level, UniformTime)

    def draws(tape: dict[str, Tensor], step: int, cut: slice) -> Draws:
        sigma = level.schedule.sigma(tape["times"][step, cut]).float()
        return Draws(sigma, tape["noise"][step, cut])

    return trainer, draws, raw_probe([100.0, 700.0]), False


def training_tape() -> dict[str, Tensor]:
    """The tapes of golden/training.json, float32."""

    def normals(seed: int, shape: tuple[int, ...]) -> Tensor:
        values = np.random.RandomState(seed).standard_normal(shape)
        return torch.from_numpy(values.astype(np.float32))

    image = (20, 8, 3, 16, 16)
    classes = np.random.RandomState(45).randint(0, 10, (20, 8))
    raw = np.tanh(np.random.RandomState(41).standard_normal(image)).astype(np.float32)
    return {
        "images": torch.from_numpy(raw),
        "z": normals(42, (20, 8, 1, 1, 1)),
        "noise": normals(43, image),
        "second_noise": normals(44, image),
        "labels": torch.eye(10)[torch.from_numpy(classes)],
        "timesteps": torch.from_numpy(np.random.RandomState(46).randint(0, 1000, (20, 8))),
        "times": torch.from_numpy(np.random.RandomState(47).uniform(0, 1, (20, 8))),
        "probe": normals(48, (2, 3, 16, 16)),
    }


def dataset_tool(case: Case) -> float:
    """The data set that the tool makes of a folder: names, labels and pixels must be equal."""
    with tempfile.TemporaryDirectory() as folder:
        dest = Path(folder) / "dataset.zip"
        command = [sys.executable, str(ROOT / "dataset_tool.py"), *case.spec["args"]]
        source = case.folder / case.spec["source"]
        subprocess.run([*command, f"--source={source}", f"--dest={dest}"], check=True)
        archive = ImageArchive(dest)
        labels = archive.labels()
        pictures = [np.array(PIL.Image.open(io.BytesIO(archive.read(n)))) for n in archive.names]
    golden = case.spec["labels"]
    is_equal = (
        list(archive.names) == case.spec["names"]
        and (labels is None if golden is None else list(labels.items()) == list(map(tuple, golden)))
        and np.array_equal(np.stack(pictures), case.arrays[case.name])
    )
    return 0.0 if is_equal else 1.0


def augmentation(case: Case) -> float:
    """Augmented images and their labels, from given variates whose gates have all passed."""
    params: dict[str, Tensor] = {}
    for name in case.spec["augmentations"]:
        variate = torch.from_numpy(case.arrays[f"param/{name}"])
        in_units_of_pi = name in ("rotate_frac", "hue")
        variate = variate.T if variate.ndim == 2 else variate
        params[name] = math.pi * variate if in_units_of_pi else variate
        if name == "aniso":
            angle = case.arrays["param/aniso_angle"] * case.arrays["param/aniso_rotated"]
            params["aniso_angle"] = math.pi * torch.from_numpy(angle)
    images, labels = augment.apply(torch.from_numpy(case.arrays[case.spec["images"]]), params)
    return max(
        relative_error(images.numpy(), case.arrays[f"{case.name}/out"]),
        relative_error(labels.numpy(), case.arrays[f"{case.name}/labels"]),
    )


KINDS = {
    "augment": augmentation,
    "dataset-tool": dataset_tool,
    "networks-ddpm": networks_ddpm,
    "networks-edm": networks_edm,
    "samplers": samplers,
    "losses": training_losses,
    "training": training,
}
