"""Generate images from a snapshot: one PNG a seed, or a seed for each class."""

import math
import sys
from pathlib import Path
from typing import Any

import click

from samplers.command_line import sampler_options, settings_of
from torch_utils.command import Command, IntList
from torch_utils.errors import UserError


@click.command(cls=Command, needs_less="compute fewer images at once (--batch)")
@click.option(
    "--network", metavar="FILE|DIR", required=True, help="Snapshot, or a run for its newest."
)
@click.option("--outdir", metavar="DIR", required=True, help="Where the images go.")
@click.option(
    "--seeds",
    type=IntList(),
    metavar="LIST",
    default="0-63",
    show_default=True,
    help="Random seeds, e.g. 1,2,5-10; one image each.",
)
@click.option("--subdirs", is_flag=True, help="A folder for every thousand seeds.")
@click.option(
    "--class",
    "class_",
    metavar="INT|NAME|each",
    help="Class of all images; `each` makes every seed in every class, in a folder a class.  "
    "[default: drawn from the seed]",
)
@click.option("--tags", metavar="LIST", help="Tags of all images, e.g. Black_Hair,Bangs.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="INT",
    default=64,
    show_default=True,
    help="Images computed at once; does not change them.",
)
@sampler_options
@click.option(
    "--guidance-network",
    metavar="FILE|DIR",
    help="Guide by this snapshot instead of the null label (autoguidance).",
)
@click.option(
    "--grid", metavar="FILE", help="Also put all images into one PNG; `each`: one row a class."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)
@click.option(
    "--rng-device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where to draw random numbers; cuda gives the images that EDM gives on a GPU.",
)
def main(
    network: str,
    outdir: str,
    seeds: list[int],
    subdirs: bool,
    class_: str | None,
    tags: str | None,
    batch: int,
    guidance_network: str | None,
    grid: str | None,
    device: str,
    rng_device: str,
    **sampler: Any,
) -> None:
    """Generate images from a trained snapshot. Image i depends on its seed alone.

    Sampler options that are not given have the values stored in the snapshot, if it has any.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from models.snapshot import find_snapshot, load_snapshot, read_info
    from samplers.fitting import check, noise_levels
    from samplers.generate import generate, to_uint8
    from samplers.plan import plan
    from torch_utils.distributed import choose_device, world
    from torch_utils.files import writing
    from torch_utils.images import save_grid_of, save_png
    from torch_utils.progress import Progress

    network = str(find_snapshot(network))
    info = read_info(network)
    has_guide = guidance_network is not None
    settings, remarks, warnings = settings_of(info.sampling, sampler, has_guide=has_guide)
    images = plan(
        seeds,
        chosen=class_,
        tags=tags,
        label_dim=info.model.label_dim,
        label_kind=info.label_kind,
        label_names=info.label_names,
    )
    choose_device(rng_device)

    def path(seed: int, folder: str) -> Path:
        thousand = f"{seed - seed % 1000:06d}" if subdirs else ""
        return Path(outdir) / folder / thousand / f"{seed:06d}.png"

    with world(device) as here:
        denoiser, _ = load_snapshot(network, here.device)
        guide = None
        if guidance_network is not None:
            guide, _ = load_snapshot(find_snapshot(guidance_network), here.device)
        check(settings, denoiser, guide)
        check_outputs(outdir, grid, info.model.img_channels)
        if here.is_main:
            for line in warnings:
                print(f"warning: {line}", file=sys.stderr)
            for line in [*remarks, *noise_levels(settings, denoiser, guide)[1]]:
                click.echo(line)
        first, stop = here.range_of(len(images))
        todo = iter(images[first:stop])
        samples = [sample for sample, _ in images[first:stop]]
        shown = Progress(len(samples), "generating", shown=here.is_main)
        counts = torch.zeros(info.model.label_dim, dtype=torch.int64)
        with ThreadPoolExecutor(4) as pool, shown as bar, writing(outdir):
            writes = []
            for chunk in generate(
                denoiser,
                settings,
                samples,
                guide=guide,
                batch_size=batch,
                rng_device=rng_device,
            ):
                for picture in to_uint8(chunk.images).cpu().numpy():
                    sample, folder = next(todo)
                    writes.append(pool.submit(save_png, path(sample.seed, folder), picture))
                for index in chunk.classes or []:
                    counts[index] += 1
                bar.update(len(chunk.images))
            for write in writes:
                write.result()
        here.sum(counts)
        here.barrier()
        if not here.is_main:
            return
    if grid is not None:
        rows = info.label_names or [str(index) for index in range(info.model.label_dim)]
        by_class = class_ == "each"
        columns = len(seeds) if by_class else math.ceil(math.sqrt(len(images)))
        files = [path(sample.seed, folder) for sample, folder in images]
        save_grid_of(files, grid, columns, row_names=rows if by_class else [])
        click.echo(f"grid: {grid}")
    names = info.label_names
    if names and tags is not None:
        click.echo(f"tags: {tags or 'none'}")
    elif names and info.label_kind == "class":
        found = [f"{name} {num}" for name, num in zip(names, counts.tolist(), strict=True) if num]
        click.echo(f"classes: {', '.join(found[:20])}{', ...' if len(found) > 20 else ''}")
    click.echo(f"{len(images)} images in {outdir}")


def check_outputs(outdir: str, grid: str | None, num_channels: int) -> None:
    """Make the folders of what will be written, or find out before the work that it cannot be.

    Raises:
        UserError: PNGs cannot hold the images, or the folders cannot be written.
    """
    from torch_utils.files import prepare_folder

    if num_channels not in (1, 3):
        raise UserError(f"PNGs have 1 or 3 channels, the images of this model {num_channels}")
    prepare_folder(outdir)
    if grid is not None:
        if Path(grid).suffix.lower() != ".png" or Path(grid).is_dir():
            raise UserError(f"--grid={grid}: give a file whose name ends in .png")
        prepare_folder(Path(grid).parent)


if __name__ == "__main__":
    main()
