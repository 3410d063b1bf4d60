"""What the terms of an objective cost: draws, forward and backward, over those of plain denoising.

    python -m benchmarks.bench_losses --device=cpu --out=benchmarks/results/losses-cpu.json

Each variant is timed between two runs of the plain loss, so that a slow moment of the machine meets
both; the ratio is the median over rounds, `plain` itself the control. Beside it stands what the
number of samples through the network says, a backward pass counting as two forward ones. The
optimizer's step, the same for all, is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import now
from diffusion.denoiser import Denoiser
from losses.batch import Batch, Generators
from losses.objective import Objective
from models.build import build
from torch_utils.command import Command
from torch_utils.errors import UserError, unknown_name
from torch_utils.precision import DTYPES, autocast
from training.config import model_config
from training.ema import average_of
from training.recipes import load_config
from training.setup import create_objective

# Size -> recipe in configs/, image shape (channels, height, width), width of the labels.
SIZES = {
    "digits": ("digits.yaml", (1, 8, 8), 10),
    "digits-tiny": ("digits-tiny.yaml", (1, 8, 8), 10),
    "ddpmpp-cifar": ("cifar10-cond-ddpmpp.yaml", (3, 32, 32), 10),
}


def sequence_aware(K: int) -> dict[str, Any]:
    """The sequence-aware term over the steps of EDM's usual grid."""
    return {"name": "sequence_aware", "lambda": 0.5, "K": K, "grid": {"name": "rho", "steps": 18}}


def consistency(batch_fraction: float, rollout: str = "online") -> dict[str, Any]:
    """The consistency term with its published rollouts, of 6 nodes."""
    return {"name": "consistency", "batch_fraction": batch_fraction, "rollout": rollout}


# Name -> what its section `loss` says beyond the recipe's.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sequence_aware K=2": {"terms": ["denoising", sequence_aware(2)]},
    "sequence_aware K=3": {"terms": ["denoising", sequence_aware(3)]},
    **{
        f"consistency {share} {rollout}": {"terms": ["denoising", consistency(fraction, rollout)]}
        for share, fraction in (("1", 1.0), ("1/2", 0.5), ("1/8", 0.125))
        for rollout in ("online", "ema")
    },
    "K=2 and consistency 1/8": {"terms": ["denoising", sequence_aware(2), consistency(0.125)]},
    "uncertainty": {"uncertainty": True},
}


@dataclass(frozen=True)
class Setting:
    """What all variants share.

    Attributes:
        denoiser, average: the model under training and its average.
        batch: images and labels.
        generators: of all draws, on the device.
        precision: fp32, bf16 or fp16.
    """

    denoiser: Denoiser
    average: Denoiser
    batch: Batch
    generators: Generators
    precision: str

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.batch.images.device

    def gradients(self, objective: Objective) -> None:
        """One evaluation as training does it: draws, loss, gradients."""
        self.denoiser.zero_grad(set_to_none=True)
        if objective.uncertainty is not None:
            objective.uncertainty.zero_grad(set_to_none=True)
        draws = objective.draw(self.generators, self.batch)
        with autocast(self.precision, self.device):
            terms = objective(self.denoiser, self.batch, draws, rollout=self.average)
        terms.total().backward()  # type: ignore[no-untyped-call]


def prepare(
    size: str, num: int, precision: str, device: torch.device
) -> tuple[Setting, dict[str, Objective]]:
    """The model of a recipe with fresh weights, random images, and the variants' objectives."""
    torch.manual_seed(0)
    recipe, shape, label_dim = SIZES[size]
    path = Path(__file__).parents[1] / "configs" / recipe
    config = load_config(path)
    model = build(model_config(config, image_shape=shape, label_dim=label_dim))
    denoiser = model.to(device).train()
    labels = torch.eye(label_dim)[torch.arange(num) % label_dim]
    random = torch.Generator(device).manual_seed(0)
    setting = Setting(
        denoiser,
        average_of(denoiser),
        Batch(torch.rand(num, *shape, device=device) * 2 - 1, labels.to(device)),
        Generators(random, random),
        precision,
    )
    objectives = {}
    for name, loss in VARIANTS.items():
        objectives[name] = objective = create_objective(load_config(path, {"loss": loss}))
        if objective.uncertainty is not None:
            objective.uncertainty.to(device)
    return setting, objectives


def samples(setting: Setting, objective: Objective) -> dict[str, int]:
    """Samples that pass the networks in one evaluation: forward, and with a backward pass."""
    counts = {"forward": 0, "backward": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        counts["forward"] += len(inputs[0])
        counts["backward"] += len(inputs[0]) if torch.is_grad_enabled() else 0

    models = (setting.denoiser.model, setting.average.model)
    hooks = [model.register_forward_pre_hook(count) for model in models]
    setting.gradients(objective)
    for hook in hooks:
        hook.remove()
    return counts


def ratios(
    setting: Setting, objectives: dict[str, Objective], rounds: int
) -> tuple[dict[str, list[float]], list[float]]:
    """Each variant's time over the mean of the plain loss before and after it; plain times."""

    def seconds(call: Callable[[Objective], None], objective: Objective) -> float:
        start = now(setting.device)
        call(objective)
        return now(setting.device) - start

    found: dict[str, list[float]] = {name: [] for name in objectives}
    plain_times = []
    for _ in range(rounds):
        before = seconds(setting.gradients, objectives["plain"])
        for name, objective in objectives.items():
            spent = seconds(setting.gradients, objective)
            after = seconds(setting.gradients, objectives["plain"])
            found[name].append(2 * spent / (before + after))
            plain_times.append(after)
            before = after
    return found, plain_times


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--size", default="digits", show_default=True, help=f"One of {', '.join(SIZES)}.")
@count_option("--batch", 128, "Images at once; a multiple of 8.")
@count_option("--rounds", 10, "All variants, in turn.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, bf16 or fp16.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(device: str, size: str, batch: int, rounds: int, precision: str, out: str | None) -> None:
    """Measure the terms of the training objective and print a table."""
    if size not in SIZES:
        raise unknown_name("size", size, SIZES)
    if precision not in DTYPES:
        raise unknown_name("precision", precision, DTYPES)
    if batch < 8 or batch % 8:
        raise UserError(f"batch is {batch}: an eighth of it must be a whole number")
    if rounds < 2:
        raise UserError(f"rounds is {rounds}: quartiles need at least 2")
    where = prepared_device(device, trains=True)
    setting, objectives = prepare(size, batch, precision, where)
    counts = {name: samples(setting, objective) for name, objective in objectives.items()}
    found, plain_times = ratios(setting, objectives, rounds)
    rows = []
    print(
        f"{'variant':26} {'forward':>8} {'backward':>8} {'predicted':>9} {'measured':>9}  quartiles"
    )
    for name, count in counts.items():
        work = count["forward"] + 2 * count["backward"]
        plain = counts["plain"]["forward"] + 2 * counts["plain"]["backward"]
        low, _, high = quantiles(found[name], n=4, method="inclusive")
        row = {
            "variant": name,
            **count,
            "predicted": round(work / plain, 3),
            "measured": round(median(found[name]), 3),
            "quartiles": [round(low, 3), round(high, 3)],
        }
        rows.append(row)
        print(
            f"{name:26} {count['forward']:8} {count['backward']:8} {row['predicted']:9.3f} "
            f"{row['measured']:9.3f}  {low:.3f} to {high:.3f}"
        )
    record = {
        "hardware": hardware(where),
        "size": size,
        "batch": batch,
        "precision": precision,
        "rounds": rounds,
        "plain_s": round(median(plain_times), 4),
        "variants": rows,
    }
    print(f"plain: {record['plain_s']} s for {batch} images")
    write_results(out, record)


if __name__ == "__main__":
    main()
