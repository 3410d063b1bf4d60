"""Generate images from a model: one PNG a seed, or a seed for each class."""

import math
import sys
from typing import Any

import click

from importers.command_line import (
    guidance_network_option,
    model_config_option,
    network_option,
    weights_option,
)
from importers.spellings import explain
from samplers.command_line import sampler_options, settings_of
from torch_utils.command import Command, IntList, device_option
from torch_utils.errors import Failure, explain_names_with

explain_names_with(explain)


@click.command(cls=Command, needs_less="compute fewer images at once (--batch)")
@network_option
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
@click.option("--label", metavar="LIST", help="Label vector of all images, e.g. 0.25,-3,7.5.")
@click.option("--labels", metavar="NPY", help="File of label vectors, one a seed.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="INT",
    default=64,
    show_default=True,
    help="Images computed at once; does not change them.",
)
@sampler_options
@guidance_network_option
@model_config_option
@weights_option
@click.option(
    "--grid", metavar="FILE", help="Also put all images into one PNG; `each`: one row a class."
)
@device_option
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
    label: str | None,
    labels: str | None,
    batch: int,
    guidance_network: str | None,
    model_config: str | None,
    weights: str,
    grid: str | None,
    device: str,
    rng_device: str,
    **sampler: Any,
) -> None:
    """Generate images from a trained model. Image i depends on its seed alone.

    Sampler options that are left out have the values stored in the snapshot, if it has any; those
    of a foreign checkpoint have the values that it is published with.
    Without an option for labels, they are drawn from those of the training set.
    """
    import torch

    from importers.opening import find_model, open_model, read_model
    from samplers.describe import not_finite_line, png_text, row_labels, summary
    from samplers.generate import generate
    from samplers.labels import label_source
    from samplers.outputs import (
        PictureWriter,
        check_outputs,
        check_room,
        failing,
        picture_path,
        write_batches,
    )
    from samplers.requests import LabelWords, check_seeds, requests
    from samplers.sampling import sampling_of
    from torch_utils.distributed import choose_device, world
    from torch_utils.grids import save_grid_of
    from torch_utils.leaving import ended_by_sigterm
    from torch_utils.progress import Progress

    model = read_model(find_model(network), model_config=model_config, weights=weights)
    info, network = model.info, str(model.path)
    has_guide = guidance_network is not None
    settings, remarks, warnings = settings_of(info.sampling, sampler, has_guide=has_guide)
    source = label_source(**info.labels)
    words = LabelWords(class_, tags, label, labels)
    warnings += check_seeds(seeds)
    requested = requests(seeds, words, source)
    paths = [picture_path(outdir, s.seed, folder, subdirs=subdirs) for s, folder in requested]
    choose_device(rng_device)

    with world(device) as here, ended_by_sigterm():
        denoiser, guide = model.denoiser(here.device), None
        if guidance_network is not None:
            guide = open_model(find_model(guidance_network), here.device).denoiser
        sampling = sampling_of(settings, denoiser, guide)
        check_outputs(outdir, grid, denoiser.img_channels)
        shape = (denoiser.img_channels, *denoiser.img_resolution)
        warnings += check_room(outdir, paths, shape, has_grid=grid is not None)
        warnings += sampling.cautions(label_dropout=info.label_dropout)
        if sampling.ignores_labels:
            idle = [f"{option} has no effect" for option, _ in words.given]
            warnings += [f"{option}: at guidance 0 labels are not used" for option in idle]
        if here.is_main:
            for line in warnings:
                print(f"warning: {line}", file=sys.stderr)
            for line in [*model.notes, *remarks, *sampling.notes]:
                click.echo(line)

        first, stop = here.range_of(len(requested))
        progress = Progress(stop - first, "generating", shown=here.is_main)
        with progress as bar, PictureWriter(outdir) as writer:
            batches = generate(
                sampling,
                [sample for sample, _ in requested[first:stop]],
                source=source,
                batch_size=batch,
                rng_device=rng_device,
                callback=lambda i, sigma, x, _: bar.within(len(x), i / (len(sampling.sigmas) - 1)),
            )
            own_lost, classes = write_batches(batches, paths[first:stop], writer, bar.update)
        is_lost = torch.zeros(len(requested), dtype=torch.int32)
        is_lost[[first + position for position in own_lost]] = 1
        counts = torch.bincount(torch.tensor(classes, dtype=torch.int64), minlength=source.dim)
        here.meet()
        here.sum(counts)
        here.sum(is_lost)
        if not here.is_main:
            return
        lost = is_lost.nonzero().flatten().tolist()
        if grid is not None and len(lost) < len(requested):
            columns = len(seeds) if class_ == "each" else math.ceil(math.sqrt(len(requested)))
            said = LabelWords() if sampling.ignores_labels else words
            rows, numbers = row_labels(requested, said, source.names, columns)
            text = png_text(settings, seeds, network)
            with failing(grid):
                save_grid_of(paths, grid, columns, row_names=rows, row_numbers=numbers, text=text)
            click.echo(f"grid: {grid}")
    if source.dim and not sampling.ignores_labels and len(lost) < len(requested):
        for line in summary(words, source, counts.tolist()):
            click.echo(line)
    click.echo(f"{len(requested) - len(lost)} images in {outdir}")
    if lost:
        raise Failure(not_finite_line(requested, lost))


if __name__ == "__main__":
    main()
