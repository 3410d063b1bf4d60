"""Golden cases of training: twenty steps with every random quantity from the tapes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.denoiser import Denoiser
from importers.families import import_network
from importers.published import translate
from losses.batch import Batch, Draws
from losses.levels import Discrete, UniformTime
from models.build import build
from models.config import ModelConfig, PreconditioningConfig
from tests.importers import foreign
from tests.parity.harness import Case, NotBuilt, relative_error
from tests.parity.kinds.common import OUTPUTS, WEIGHTS, flat
from tests.parity.kinds.losses import schedule_of
from tests.parity.kinds.networks import denoiser_config
from tests.parity.weights import fill_by_rule
from torch_utils.distributed import World
from training.config import TrainingConfig, resolve
from training.setup import create_objective
from training.trainer import Trainer


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
    imported = import_network(weights, config | {"schedule": "logsnr_legacy", "prediction": "eps"})
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
        "schedule": schedule_of(spec),
        "output": OUTPUTS.get(spec["prediction"], spec["prediction"]),
    }
    weight = WEIGHTS.get(spec["weight"], spec["weight"])
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
