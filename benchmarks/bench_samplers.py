"""What solvers cost beyond their calls of the network, and how far they are from the exact result.

    python -m benchmarks.bench_samplers --device=cpu --out=benchmarks/results/samplers-cpu.json

Overhead: the time of sampling outside of the denoiser, over the time in it, with a network tuned to
about 10 ms a call; the solver's noises are drawn as `samplers.starts` draws them, image by image.
Errors, always on the CPU in float64, without a network and without random numbers: in law on a
mixture and in variance on Gaussian data for every sampler, and of the final state for deterministic
ones. `solver_errors.py` goes deeper into the solvers of the reverse SDE.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import Stopwatch, now
from diffusion.denoiser import Denoiser
from models.build import build
from models.config import ModelConfig
from networks.layers import has_tangent
from samplers import SAMPLERS
from samplers.levels import solver_of, visited_levels
from samplers.sampling import sampling_of
from samplers.settings import GenerationSettings, generation_settings
from samplers.starts import SeededNoise
from tests.samplers.orders import MIXTURE, Draws, final_variance, images, law_error, zeros
from torch_utils.command import Command, IntList
from torch_utils.errors import UserError

DATA_STD = 0.5  # of the Gaussian
ERRORS = ("state", "law", "variance")
WIDTHS = (4, 8, 12, 16, 24, 32, 64, 96, 128, 192, 256)  # channels of the network to choose from


@dataclass(frozen=True)
class Case:
    """A sampler with options.

    Attributes:
        name: key of SAMPLERS.
        options: what differs from the defaults.
        is_chain: a step depends on nothing but its two levels, so that a law can be carried
            through the steps one by one.
    """

    name: str
    options: dict[str, Any]
    is_chain: bool = True

    def settings(self, num_steps: int) -> GenerationSettings:
        """On the sampler's default grid."""
        return generation_settings({"name": self.name, "steps": num_steps, **self.options})

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


# a step of theirs depends on steps before it, or some steps are followed by more than that
NO_CHAINS = ("dpmpp_2m_sde", "dpmpp_3m_sde", "restart")

CASES = [Case(name, {}, is_chain=name not in NO_CHAINS) for name in SAMPLERS] + [
    Case("heun", {"S_churn": 40.0}, is_chain=False),  # spreads the churn over its number of steps
    Case("ddim", {"eta": 1.0}),
    Case("ablation", {"solver": "euler"}),
    Case("ddpm", {"variance": "large"}),
    Case("reverse_sde", {"corrector": "shared"}),
    Case("ito_taylor", {"derivative": "fd"}),
    Case("ito_taylor", {"scheme": "weak2"}),
    Case("sra1", {"beta": 0.0}),
]


# ---- overhead ----


def make_denoiser(width: int, device: torch.device) -> Denoiser:
    """A DDPM++ for 32x32 colour images, one block a resolution."""
    torch.manual_seed(0)
    options = {"model_channels": width, "channel_mult": [1, 2], "num_blocks": 1}
    network = {"name": "ddpmpp", **options, "attn_resolutions": [16], "dropout": 0.0}
    config = ModelConfig(network=network, img_resolution=(32, 32), img_channels=3)
    return build(config).to(device).eval()


def call_seconds(denoiser: Denoiser, batch: int, device: torch.device) -> float:
    """Median time of a call, after one that warms up."""
    x = torch.randn(batch, 3, 32, 32, dtype=torch.float64, device=device)
    times = []
    with torch.inference_mode():
        for _ in range(8):
            start = now(device)
            denoiser(x, 1.0)
            times.append(now(device) - start)
    return median(times[1:])


def tuned_denoiser(call_ms: float, batch: int, device: torch.device) -> tuple[Denoiser, int]:
    """The denoiser whose call is nearest to `call_ms`, and its width."""
    best, best_distance, width = make_denoiser(WIDTHS[0], device), math.inf, 0
    for candidate in WIDTHS:
        denoiser = make_denoiser(candidate, device)
        found = 1000 * call_seconds(denoiser, batch, device)
        distance = abs(math.log(found / call_ms))
        if distance < best_distance:
            best, best_distance, width = denoiser, distance, candidate
        if found > 2 * call_ms:
            break
    return best, width


class Watches:
    """Clocks around a denoiser and its network; plain calls and dual ones (jvp) apart."""

    def __init__(self, device: torch.device) -> None:
        self.plain, self.dual = Stopwatch(device), Stopwatch(device)
        self.network, self.noise = Stopwatch(device), Stopwatch(device)

    def around(self, watch: Stopwatch, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same function, timed."""

        def timed(*args: Any) -> Tensor:
            watch.start()
            result = call(*args)
            watch.stop()
            return result

        return timed

    def around_denoise(self, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same denoiser, timed."""
        plain, dual = self.around(self.plain, call), self.around(self.dual, call)
        return lambda x, sigma: (dual if has_tangent(x) else plain)(x, sigma)

    def watch_network(self, network: nn.Module) -> list[Any]:
        """Hooks that time the raw network, to be removed."""
        return [
            network.register_forward_pre_hook(lambda *_: self.network.start()),
            network.register_forward_hook(lambda *_: self.network.stop()),
        ]


def overhead(
    case: Case, denoiser: Denoiser, num_steps: int, batch: int, device: torch.device
) -> dict[str, float]:
    """Sample one batch with clocks on."""
    settings, watches = case.settings(num_steps), Watches(device)
    sampling = sampling_of(settings, denoiser)
    sigmas = sampling.sigmas
    random = SeededNoise(range(batch), torch.device("cpu"))
    latents = random.normal((3, 32, 32), torch.float32).to(device, torch.float64)
    sample = sampling.solver
    denoise = watches.around_denoise(sampling.denoise(None))
    hooks = watches.watch_network(denoiser.model)
    with torch.inference_mode():
        x = latents * denoiser.prior_scale(sigmas[0])
        start = now(device)
        sample(denoise, x, sigmas, noise=watches.around(watches.noise, random.like))
        total = now(device) - start
    for hook in hooks:
        hook.remove()
    inside = watches.plain.seconds + watches.dual.seconds
    return {
        "plain_calls": watches.plain.stops,
        "dual_calls": watches.dual.stops,
        "plain_call_ms": 1000 * watches.plain.seconds / watches.plain.stops,
        "dual_call_ms": 1000 * watches.dual.seconds / max(1, watches.dual.stops),
        "overhead": total / inside - 1,
        "of_which_noise": watches.noise.seconds / inside,
        "overhead_over_network": total / watches.network.seconds - 1,
    }


def overheads(
    denoiser: Denoiser, num_steps: int, batch: int, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """Medians over rounds, in each of which every case has its turn."""
    for case in CASES:
        overhead(case, denoiser, 3, batch, device)  # warms up
    found: list[list[dict[str, float]]] = [[] for _ in CASES]
    for _ in range(rounds):
        for case, rows in zip(CASES, found, strict=True):
            rows.append(overhead(case, denoiser, num_steps, batch, device))
    return [
        {"sampler": str(case)}
        | {key: round(median(row[key] for row in rows), 4) for key in rows[0]}
        for case, rows in zip(CASES, found, strict=True)
    ]


# ---- errors ----


def errors(case: Case, num_steps: int) -> dict[str, Any]:
    """Calls, and the errors after so many steps of the default grid."""
    settings = case.settings(num_steps)
    sigmas = visited_levels(settings, 0.0, math.inf, float)[0]
    sampler, row = solver_of(settings), settings.row
    start = sigmas[0] ** 2 + DATA_STD**2
    found: dict[str, Any] = {
        "steps": len(sigmas) - 1,
        **calls(sampler, sigmas),
        "variance": abs(final_variance(sampler, sigmas, DATA_STD, start) / DATA_STD**2 - 1),
    }
    if case.is_chain:
        kinds = "z" * draws_per_step(sampler, sigmas)
        found["law"] = law_error(sampler, sigmas, kinds=kinds)
    if not row.is_stochastic(settings.options):
        x = images(torch.linspace(-2.5, 2.5, 101, dtype=torch.float64) * sigmas[0])
        exact = MIXTURE.flow(x, sigmas[0], 0.0)
        found["state"] = float((sampler(MIXTURE, x, sigmas, noise=zeros()) - exact).abs().max())
    return found


def calls(sampler: Callable[..., Tensor], sigmas: list[float]) -> dict[str, int]:
    """Calls of the denoiser, and how many of them are dual passes, of twice the work."""
    counts = {"calls": 0, "dual_calls": 0}

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        counts["calls"] += 1
        counts["dual_calls"] += has_tangent(x)
        return MIXTURE(x, sigma)

    sampler(denoise, images(torch.zeros(1, dtype=torch.float64)), sigmas, noise=zeros())
    return counts


def draws_per_step(sampler: Callable[..., Tensor], sigmas: list[float]) -> int:
    """Draws in a step that does not end at 0."""
    noise: Draws = zeros()
    sampler(MIXTURE, images(torch.zeros(1, dtype=torch.float64)), sigmas[:2], noise=noise)
    return noise.calls


def print_overheads(rows: list[dict[str, Any]]) -> None:
    """A table of what `overheads` found."""
    heads = f"{'ms':>6} {'dual':>6} {'overhead':>9} {'noise':>7} {'network':>8}"
    print(f"{'sampler':28} {'calls':>9} {heads}")
    for row in rows:
        counted = f"{row['plain_calls']:.0f}+{row['dual_calls']:.0f}"
        print(
            f"{row['sampler']:28} {counted:>9} {row['plain_call_ms']:6.1f} "
            f"{row['dual_call_ms']:6.1f} {row['overhead']:9.2%} {row['of_which_noise']:7.2%} "
            f"{row['overhead_over_network']:8.2%}"
        )


def print_errors(case: Case, rows: list[dict[str, Any]]) -> None:
    """Calls and errors of one case, a line an error."""
    print(case)
    for kind, form in (("calls", "d"), ("dual_calls", "d"), *((kind, ".2e") for kind in ERRORS)):
        if any(row.get(kind) for row in rows):
            print(f"{kind:>28} {' '.join(format(row[kind], f'9{form}') for row in rows)}")


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="Of overheads: auto, cpu, cuda.")
@click.option("--call-ms", default=10.0, show_default=True, help="What the network is tuned to.")
@count_option("--batch", 4, "Images at once.")
@count_option("--steps", 18, "Steps in which overhead is measured.")
@count_option("--rounds", 10, "All samplers, in turn.")
@click.option("--error-steps", type=IntList(), default="9,18,36,72", show_default=True,
              help="Steps after which errors are taken.")  # fmt: skip
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str,
    call_ms: float,
    batch: int,
    steps: int,
    rounds: int,
    error_steps: list[int],
    out: str | None,
) -> None:
    """Measure all samplers and print two tables."""
    for name, value in (("call-ms", call_ms), ("batch", batch), ("rounds", rounds)):
        if value <= 0:
            raise UserError(f"{name} is {value:g}: it must be positive")
    where = prepared_device(device)
    record: dict[str, Any] = {"hardware": hardware(where), "batch": batch, "rounds": rounds}
    denoiser, width = tuned_denoiser(call_ms, batch, where)
    print(f"network: {width} channels; medians of {rounds} rounds of {steps} steps, batch {batch}")
    record |= {"channels": width, "steps": steps}
    record["overhead"] = overheads(denoiser, steps, batch, rounds, where)
    print_overheads(record["overhead"])
    torch.set_num_threads(1)  # small tensors
    print(f"\nerrors with {', '.join(map(str, error_steps))} steps")
    record["errors"] = {}
    for case in CASES:
        record["errors"][str(case)] = rows = [errors(case, num_steps) for num_steps in error_steps]
        print_errors(case, rows)
    write_results(out, record)


if __name__ == "__main__":
    main()
