"""Generate images from a model: one PNG a seed, or a seed for each class."""

from typing import Any

import click

from generation.command_line import mode_options, split_options
from importers.command_line import (
    guidance_network_option,
    model_config_option,
    network_option,
    weights_option,
)
from importers.spellings import explain
from samplers.command_line import sampler_options
from torch_utils.command import Command, IntList, device_option
from torch_utils.errors import explain_names_with

explain_names_with(explain)


@click.command(cls=Command, needs_less="compute fewer images at once (--batch)")
@network_option
@click.option(
    "--outdir",
    metavar="DIR|FILE",
    required=True,
    help="Where the images go: a folder, FILE.zip (a data set) or FILE.npz.",
)
@click.option(
    "--seeds",
    type=IntList(),
    metavar="LIST",
    help="Random seeds, e.g. 1,2,5-10; one image each.  "
    "[default: 0-63; interpolate: 0-3, scales: 0]",
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
@mode_options
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
    seeds: list[int] | None,
    subdirs: bool,
    class_: str | None,
    tags: str | None,
    label: str | None,
    labels: str | None,
    batch: int,
    guidance_network: str | None,
    model_config: str | None,
    weights: str,
    mode: str,
    device: str,
    rng_device: str,
    **options: Any,
) -> None:
    """Generate images from a trained model. Image i depends on its seed alone.

    Sampler options that are left out have the values stored in the snapshot, if it has any; those
    of a foreign checkpoint have the values that it is published with.
    Without an option for labels, they are drawn from those of the training set.
    """
    row, own, sampler, warnings = split_options(mode, options)

    from diffusion.calls import Calls
    from generation.setup import Asked, open_setup
    from samplers.requests import LabelWords
    from torch_utils.distributed import world
    from torch_utils.leaving import ended_by_sigterm

    asked = Asked(
        network=network,
        outdir=outdir,
        seeds=seeds or IntList().convert(row.seeds, None, None),
        subdirs=subdirs,
        words=LabelWords(class_, tags, label, labels),
        batch=batch,
        guidance_network=guidance_network,
        model_config=model_config,
        weights=weights,
        rng_device=rng_device,
    )
    with world(device) as here, ended_by_sigterm(), Calls() as calls:
        setup = open_setup(asked, sampler, here).with_called(calls.of)
        setup.warnings[:0] = warnings
        row.load()(setup, **own)


if __name__ == "__main__":
    main()
