"""What half precision gains and costs in sampling: time of a network call, error of every sampler.

    python -m benchmarks.bench_half --network=runs/demo/training \
        --out=benchmarks/results/half-cpu.json

The calls are of DDPM++ with 64 channels (multipliers 2, 2, 32x32 images): in fp32; under autocast,
which casts all weights at every call; as sampling does it (`diffusion.half`), in both memory
layouts; and on CPUs as it is called then, by two threads (`diffusion.calls`). The errors are of the
images of a trained model, rms over pixels against the same seeds with network in fp32 and solver in
float64.
"""

import copy
from statistics import median
from typing import Any

import click
import torch

from benchmarks.hardware import hardware, prepared_device, write_results
from benchmarks.options import count_option
from benchmarks.timing import interleaved, ratio
from diffusion import preconditioning
from diffusion.calls import HalvedDenoiser
from diffusion.denoiser import Denoiser
from diffusion.half import HalfDenoiser, halved
from models.snapshot import find_snapshot, load_snapshot
from networks import create
from samplers import SAMPLERS
from samplers.generate import generate
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample
from torch_utils.command import Command
from torch_utils.precision import autocast
from torch_utils.two_threads import TwoThreads, may_share

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
FORMS: dict[str, dict[str, str]] = {
    "network bf16, solver float64": {"precision": "bf16", "solver_dtype": "float64"},
    "network bf16, solver float32": {"precision": "bf16"},
    "network fp32, solver float32": {"solver_dtype": "float32"},
}


def yardstick(channels: int, resolution: int, device: torch.device) -> Denoiser:
    """An untrained DDPM++ with EDM's preconditioning."""
    sizes = {"img_resolution": resolution, "img_channels": 3}
    network = create("ddpmpp", **sizes, model_channels=channels, channel_mult=[2, 2])
    shape = {"img_resolution": (resolution, resolution), "img_channels": 3}
    denoiser = Denoiser(network, preconditioning.create("edm"), **shape)
    return denoiser.to(device).eval().requires_grad_(False)


def channels_last(denoiser: Denoiser) -> Denoiser:
    """A float32 copy with its weights in channels last, whatever sampling would choose."""
    apart = copy.deepcopy(denoiser)
    apart.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return apart


def in_layout(denoiser: Denoiser, layout: torch.memory_format) -> Denoiser:
    """A bf16 copy whose features have a memory layout, whatever sampling would choose."""
    half = halved(denoiser, "bf16")
    assert isinstance(half, HalfDenoiser)
    half.layout = layout
    half.model.to(memory_format=layout)  # type: ignore[call-overload]
    return half


def time_calls(denoiser: Denoiser, batch: int, device: torch.device) -> dict[str, Any]:
    """Seconds an image of one call in each way, and how many times as fast as fp32 it is."""
    height, width = denoiser.img_resolution
    x = torch.randn(batch, denoiser.img_channels, height, width, device=device)
    halves = {name: in_layout(denoiser, layout) for name, layout in LAYOUTS.items()}

    def under_autocast() -> torch.Tensor:
        with autocast("bf16", device):
            return denoiser(x, 1.0)

    apart = channels_last(denoiser)
    calls = {
        "fp32": lambda: denoiser(x, 1.0),
        "fp32 channels_last": lambda: apart(x, 1.0),
        "bf16 autocast": under_autocast,
        **{f"bf16 {name}": lambda half=half: half(x, 1.0) for name, half in halves.items()},
    }
    with torch.inference_mode(), TwoThreads() as threads:
        if device.type == "cpu" and may_share():
            for name, whole in (("fp32", apart), ("bf16", halves["channels_last"])):
                divided = HalvedDenoiser(whole, threads)
                calls[f"{name} channels_last, two halves"] = lambda call=divided: call(x, 1.0)
        times = interleaved(calls, device)
    return {
        name: {
            "s_per_image": round(median(seconds) / batch, 5),
            "speed_over_fp32": ratio(times["fp32"], seconds),
        }
        for name, seconds in times.items()
    }


def errors(denoiser: Denoiser, num: int) -> dict[str, Any]:
    """Errors of the images of every sampler that half precision acts on, by `FORMS`."""
    found: dict[str, Any] = {}
    for name, row in SAMPLERS.items():
        if row.takes_derivatives:
            continue
        images = {}
        for form, given in {"exact": {}, **FORMS}.items():
            settings = generation_settings(
                {"name": name, "steps": max(18, row.least_steps), **given}
            )
            sampling = sampling_of(settings, denoiser).at_precision()
            samples = [Sample(seed) for seed in range(num)]
            images[form] = torch.cat([made.images.double() for made in generate(sampling, samples)])
        exact = images.pop("exact")
        found[name] = {k: float(f"{float((x - exact).square().mean().sqrt()):.3g}")
                       for k, x in images.items()}  # fmt: skip
        print(name, found[name], flush=True)
    return found


@click.command(cls=Command)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@count_option("--channels", 64, "Of the network that is timed.")
@count_option("--resolution", 32, "Of its images.")
@count_option("--batch", 4, "Images in a call.")
@click.option("--network", metavar="FILE|DIR", help="Snapshot or run, for the errors of samplers.")
@count_option("--num", 16, "Images of each sampler.")
@click.option("--out", metavar="FILE", help="Write the numbers as JSON.")
def main(
    device: str,
    channels: int,
    resolution: int,
    batch: int,
    network: str | None,
    num: int,
    out: str | None,
) -> None:
    """Measure and print."""
    where = prepared_device(device)
    calls = time_calls(yardstick(channels, resolution, where), batch, where)
    for name, row in calls.items():
        print(f"{name:20} {row['s_per_image']:.4f} s an image, {row['speed_over_fp32']}")
    record = {"hardware": hardware(where), "batch": batch, "calls": calls}
    if network is not None:
        denoiser, info = load_snapshot(find_snapshot(network), where)
        record |= {"images_seen": info.images, "errors": errors(denoiser, num)}
    write_results(out, record)


if __name__ == "__main__":
    main()
