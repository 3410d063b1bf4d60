"""Which solver, on which grid, makes the best images with few network calls.

    python -m benchmarks.few_steps --network=runs/demo/training --device=cpu \\
        --out=benchmarks/results/few-steps-cpu.json --picture=docs/images/few-steps.png

On exact denoisers, two mixtures of Gaussians, an error is the distance (root mean square over
pixels) of the results from those of the exact flow from the same latents: a fine solve whose own
error is thousands of times smaller. `digits` has a narrow component around each of some hundred
training digits, `golden` is the mixture of the golden cases. On a model of the digits there is the
same distance, and the Frechet distance by the detector `digits`, from all real ones, as
`fid.py gen` computes it. What draws noise has no such distance, only the Frechet distance.

samplers/auto.py picks from these numbers; tests/samplers/test_auto.py compares them.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from data.dataset import ImageDataset
from importers.opening import find_model, open_model
from samplers import SAMPLERS
from samplers.auto import pick_for
from samplers.generate import generate, to_uint8
from samplers.labels import label_source
from samplers.levels import solver_of, visited_levels
from samplers.sampling import Sampling, sampling_of
from samplers.settings import GenerationSettings, generation_settings
from samplers.starts import Sample
from scoring.judge import Criteria, Judge, Subject
from scoring.judging import judge_of
from tests.closed_form import GaussianMixture
from torch_utils.command import Command
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.grids import save_grid

Flat = Mapping[str, Any]

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "assets" / "digits-8x8.zip"
GOLDEN = ROOT / "tests" / "parity" / "golden" / "few_step.json"
CALLS = (5, 6, 8, 10, 15, 20)
BEYOND = (35,)  # what EDM takes for 32x32 pixels; only Heun's method and the pick
FINE = {"name": "ipndm", "steps": 100, "end": "sigma_min"}
OTHER = {"name": "heun", "steps": 18}  # scored with two sets of seeds
FORMS: tuple[dict[str, Any], ...] = (
    {"name": "euler", "grid": "rho", "end": "sigma_min"},
    {"name": "ddim", "grid": "steps"},
    {"name": "heun", "grid": "rho", "end": "zero"},
    {"name": "heun", "grid": "rho", "end": "sigma_min"},
    {"name": "dpm2", "grid": "rho", "end": "sigma_min"},
    {"name": "ipndm", "order": 4, "grid": "rho", "end": "sigma_min"},
    {"name": "ipndm", "order": 4, "grid": "rho", "end": "zero"},
    {"name": "ipndm", "order": 4, "grid": "log_sigma", "sigma_min": 0.03, "end": "zero"},
    {"name": "ipndm", "order": 3, "grid": "log_sigma", "sigma_min": 0.03, "end": "zero"},
    {"name": "ipndm", "order": 3, "grid": "log_sigma", "sigma_min": 0.1, "end": "zero"},
    {"name": "adams", "order": 4, "grid": "rho", "end": "sigma_min"},
    {"name": "dpmpp", "order": 3, "grid": "log_sigma", "end": "sigma_min"},
    {"name": "unipc", "order": 3, "grid": "log_sigma", "end": "sigma_min"},
    {"name": "unipc", "order": 3, "grid": "log_sigma", "sigma_min": 0.1, "end": "zero"},
    {"name": "dpmpp_2m_sde", "grid": "log_sigma", "end": "zero"},
    {"name": "dpmpp_3m_sde", "grid": "log_sigma", "end": "zero"},
)
LEFT_OUT = {
    "ddpm": "ancestral sampling is ddim with eta 1, for many steps",
    "ablation": "its best form is heun",
    "reverse_sde": "makes noise with fewer than 12 steps",
    "ito_taylor": "makes noise with fewer than 17 steps",
    "sra1": "makes noise with fewer than 17 steps",
    "restart": "its restarts alone make 8 calls",
}


def settings_of(form: Flat, calls: int) -> GenerationSettings | None:
    """The steps that make so many calls; None if no number of steps does."""
    try:
        settings = generation_settings({**form, "calls": calls})
    except UserError:
        return None
    return settings if settings.num_calls == calls else None


def is_stochastic(settings: GenerationSettings) -> bool:
    """Whether a sampler draws noise."""
    return settings.row.is_stochastic(settings.options)


def rms(x: Tensor) -> float:
    """Root mean square of all elements."""
    return float(x.double().square().mean().sqrt())


class Exact:
    """An exact denoiser, latents, and where its flow takes them."""

    def __init__(self, means: Tensor, std: float, num: int) -> None:
        self.denoise = GaussianMixture(means.double(), std)
        generator = torch.Generator().manual_seed(0)
        self.latents = torch.randn(num, *means.shape[1:], generator=generator, dtype=torch.float64)
        self.flow = self.solve(generation_settings({**FINE, "steps": 1000}))
        self.facts = {"components": len(means), "std": std, "latents": num}

    def solve(self, settings: GenerationSettings) -> Tensor:
        """What a sampler makes of the latents."""
        sigmas, _ = visited_levels(settings, 0.0, math.inf, float)
        solver = solver_of(settings, steps_taken=len(sigmas) - 1)
        start = self.latents * sigmas[0]
        return solver(self.denoise, start, sigmas, noise=torch.zeros_like)

    def error(self, settings: GenerationSettings) -> float | None:
        """Distance from the exact flow; None for a sampler that draws noise."""
        return None if is_stochastic(settings) else rms(self.solve(settings) - self.flow)


def mixtures(num: int) -> dict[str, Exact]:
    """The exact denoisers, with so many latents each."""
    document = json.loads(GOLDEN.read_text(encoding="utf-8"))
    spec = document["denoiser"]
    with np.load(GOLDEN.with_suffix(".npz")) as arrays:
        golden = torch.from_numpy(arrays[spec["means"]])
    digits = torch.from_numpy(ImageDataset(DIGITS, max_size=400).load()).double() / 127.5 - 1
    return {"digits": Exact(digits, 0.1, num), "golden": Exact(golden, spec["std"], num)}


class Model:
    """A model of the digits, its images by a fine solve, and a judge of all images."""

    def __init__(self, path: str, device: torch.device, num: int, num_compared: int) -> None:
        opened = open_model(find_model(path), device)
        self.denoiser, self.source = opened.denoiser, label_source(**opened.info.labels)
        self.images_seen = opened.info.images
        self.num, self.num_compared = num, num_compared
        world = World(0, 1, device)
        subject = Subject(path, (1, 8, 8), num)
        criteria = Criteria(detector="digits", metrics=("fid",), reference=str(DIGITS))
        self.judge: Judge = judge_of(criteria, world, [subject])
        self.fine = self.images(generation_settings(FINE), num_compared)

    def sampling(self, settings: GenerationSettings) -> Sampling:
        """The settings with this model."""
        return sampling_of(settings, self.denoiser)

    def images(self, settings: GenerationSettings, num: int, first: int = 0) -> Tensor:
        """Images of the seeds from `first` on, [num, 1, 8, 8], not clipped."""
        samples = [Sample(seed) for seed in range(first, first + num)]
        made = generate(self.sampling(settings), samples, source=self.source, batch_size=250)
        return torch.cat([batch.images for batch in made])

    def frechet(self, images: Tensor) -> float:
        """Frechet distance from the real digits."""
        shape = images.shape[1], images.shape[2], images.shape[3]
        part = self.judge.share([to_uint8(images)], shape)
        return self.judge.measure(self.judge.join(part, len(images)))["fid"]

    def scores(self, settings: GenerationSettings) -> dict[str, float | None]:
        """Distance from the fine solve, and the Frechet distance."""
        images = self.images(settings, self.num)
        near = None if is_stochastic(settings) else rms(images[: self.num_compared] - self.fine)
        return {"distance": near, "frechet": self.frechet(images)}


def cases(quick: bool) -> Iterator[tuple[int, Flat]]:
    """What is measured: calls and forms."""
    forms = [form for form in FORMS if form["name"] in SAMPLERS]
    yield from ((calls, form) for calls in CALLS[: 1 if quick else None] for form in forms)
    if not quick:
        for calls in BEYOND:
            yield from (
                (calls, form)
                for form in ({"name": "heun", "grid": "rho", "end": "zero"}, pick_for(calls))
            )


def draw(model: Model, path: str) -> None:
    """A digit a column, a number of calls and a sampler a row."""
    rows: list[tuple[str, GenerationSettings]] = []
    for calls in CALLS[:4]:
        for name, form in (("heun", {"name": "heun"}), ("auto", pick_for(calls))):
            rows.append((f"{name}, {calls}", generation_settings({**form, "calls": calls})))
    rows.append((f"{FINE['name']}, {FINE['steps']}", generation_settings(FINE)))
    samples = [Sample(seed, class_index=seed % 10) for seed in range(20)]
    pictures = []
    for _, settings in rows:
        made = generate(model.sampling(settings), samples, source=model.source, batch_size=20)
        pictures += list(to_uint8(next(made).images).cpu().numpy())
    names = [name for name, _ in rows]
    save_grid(path, pictures, len(samples), row_names=names, min_side=32)


@click.command(cls=Command)
@click.option("--network", required=True, metavar="FILE|DIR", help="Model of the digits.")
@count_option("--num", 300, "Images for a Frechet distance.")
@count_option("--compared", 200, "Images and latents for errors.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--quick", is_flag=True, help="5 calls only.")
@click.option("--picture", metavar="PNG", help="Write a grid of digits.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
@torch.no_grad()
def main(
    network: str,
    num: int,
    compared: int,
    device: str,
    quick: bool,
    picture: str | None,
    out: str | None,
) -> None:
    """Print errors and scores of all forms of solvers, and write them."""
    where = prepared_device(device)
    model, exact = Model(network, where, num, compared), mixtures(compared)
    rows: list[dict[str, Any]] = []
    print(f"{'calls':>5} {'digits':>8} {'golden':>8} {'distance':>8} {'frechet':>8}")
    for calls, form in cases(quick):
        settings = settings_of(form, calls)
        if settings is None:
            continue
        errors = {name: mixture.error(settings) for name, mixture in exact.items()}
        row = {"calls": calls, "steps": settings.steps, "form": dict(form), **errors}
        row |= model.scores(settings)
        rows.append(row)
        found = [row[key] for key in ("digits", "golden", "distance", "frechet")]
        shown = " ".join("       -" if value is None else f"{value:8.4f}" for value in found)
        print(f"{calls:>5} {shown}  {_words(form)}", flush=True)
    record = {
        "hardware": hardware(where),
        "network": {"recipe": "configs/digits.yaml", "images": model.images_seen},
        "images": num,
        "compared": compared,
        "fine": FINE,
        "other_seeds": {**OTHER, "frechet": _of_other_seeds(model)},
        "mixtures": {name: mixture.facts for name, mixture in exact.items()},
        "rows": rows,
    }
    write_results(out, record)
    if picture is not None:
        draw(model, picture)


def _words(form: Flat) -> str:
    return " ".join(str(form["name"]) if k == "name" else f"{k}={v}" for k, v in form.items())


def _of_other_seeds(model: Model) -> Sequence[float]:
    """Frechet distances of a good solve, for two sets of seeds: how much chance there is in it."""
    settings = generation_settings(OTHER)
    return [model.frechet(model.images(settings, model.num, first)) for first in (0, model.num)]


if __name__ == "__main__":
    main()
