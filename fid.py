"""Score images and models: FID, IS, KID, precision and recall, with what each was computed from.

The likelihood of images under a model, too. `scoring.commands` has what the commands do.
The published names are for Inception's numbers only; any other is named by its detector.
"""

from collections.abc import Sequence
from typing import Any

import click

from importers.command_line import guidance_network_option, model_config_option, network_option
from importers.spellings import explain
from samplers.command_line import sampler_options
from scoring.command_line import (
    criteria_of,
    judging_options,
    nll_options,
    reference_options,
    rng_device_option,
    say_all,
    warn_all,
)
from torch_utils.command import Command, Group, IntList, UrlOrPath
from torch_utils.errors import explain_names_with

explain_names_with(explain)

NEEDS_LESS = "compute fewer images at once (--batch)"


@click.group(cls=Group)
def main() -> None:
    """Score images, or the images of a model, against a data set."""


@main.command(cls=Command, needs_less=NEEDS_LESS)
@click.option("--images", required=True, metavar="PATH", help="Folder, zip or .npz of the images.")
@click.option(
    "--num", type=click.IntRange(2), default=50000, show_default=True, help="Images to use."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Picks the subset if there are more."
)
@judging_options
def calc(**options: Any) -> None:
    """Print the distance of images from a reference, and the classifier score."""
    from scoring.commands import calc

    calc(**options)


@main.command(cls=Command, needs_less=NEEDS_LESS)
@click.option("--data", required=True, metavar="PATH", help="Folder or zip of the data set.")
@click.option("--dest", required=True, metavar="NPZ", help="Reference file to write.")
@click.option(
    "--features", is_flag=True, help="Also keep the features of every image, for kid and pr."
)
@reference_options
def ref(**options: Any) -> None:
    """Write the reference statistics of all images of a data set."""
    from scoring.commands import ref

    ref(**options)


@main.command(cls=Command, needs_less=NEEDS_LESS)
@network_option
@click.option(
    "--seeds",
    type=IntList(),
    multiple=True,
    default=["0-49999"],
    show_default=True,
    metavar="LIST",
    help="Seeds, one image each; repeat it to score several ranges.",
)
@click.option("--outdir", metavar="DIR|FILE", help="Also keep the images: DIR, FILE.zip or .npz.")
@click.option("--subdirs", is_flag=True, help="A folder for every thousand seeds in --outdir.")
@click.option("--log", metavar="FILE", help="Append a line with the numbers.")
@guidance_network_option
@model_config_option
@judging_options
@rng_device_option
@sampler_options
def gen(**options: Any) -> None:
    """Score the images of a network as it makes them: the same numbers as through PNGs."""
    from scoring.commands import gen

    gen(**options)


@main.command(cls=Command, needs_less=NEEDS_LESS)
@network_option
@click.option("--data", required=True, metavar="PATH", help="Folder, zip or .npz of the images.")
@model_config_option
@nll_options
def nll(**options: Any) -> None:
    """Print bits per dimension of images under a network: exact likelihood by its ODE."""
    from scoring.commands import nll

    nll(**options)


@main.command(cls=Command, needs_less=NEEDS_LESS)
@click.argument("paths", nargs=-1, required=True, type=UrlOrPath(), metavar="PATH...")
@click.option(
    "--num", type=click.IntRange(2), default=50000, show_default=True, help="Images of each."
)
@click.option("--html", metavar="FILE", help="Also write a page with pictures and curves.")
@judging_options
@rng_device_option
@sampler_options
def compare(
    paths: Sequence[str],
    num: int,
    html: str | None,
    json_file: str | None,
    batch: int,
    device: str,
    rng_device: str,
    **options: Any,
) -> None:
    """Score folders, data sets and models, also by URL or name; models make seeds 0 on."""
    from scoring.judging import judge_of
    from scoring.results import as_json, check_writable, table_of, write_json
    from scoring.run import open_entry, score_entry
    from torch_utils.distributed import choose_device, world
    from torch_utils.leaving import ended_by_sigterm

    criteria, several = criteria_of(options), []
    choose_device(rng_device)
    check_writable(json_file, html)
    with world(device) as here, ended_by_sigterm():
        entries = [open_entry(path, num, options, here) for path in paths]
        judge = judge_of(criteria, here, [entry.subject for entry in entries], batch=batch)
        for entry in entries:
            if here.is_main:
                warn_all(entry.warnings)
                say_all(entry.remarks)
            scores = score_entry(judge, entry, batch=batch, rng_device=rng_device)
            if scores is not None:
                several.append(scores)
    if several:
        warn_all(judge.cautions(num))
        say_all(table_of(several))
        write_json(json_file, [as_json(scores) for scores in several])
    if several and html is not None:
        from scoring.report import write_report
        from training.run_log import find_stats

        pairs = zip(entries, several, strict=True)
        subjects = [entry.reported([scores], find_stats(entry.name)) for entry, scores in pairs]
        write_report(html, subjects, title="Driftless: scores")
        click.echo(f"page: {html}")


if __name__ == "__main__":
    main()
