"""Turn images into a dataset (uniform PNGs and labels in a zip or folder), and look at one.

`dataset_tool.py --source=... --dest=...` is EDM's command; `convert` is its name here.
"""

from typing import Any

import click

from data.sources import KINDS
from importers.spellings import explain
from torch_utils.command import Command, Group, Size
from torch_utils.errors import UserError, explain_names_with
from torch_utils.text import printable

explain_names_with(explain)

SOURCES = "; ".join(kind.summary for kind in reversed(tuple(KINDS.values())))


class _Tool(Group):
    """A group that takes options without a command as those of `convert`, as EDM's tool does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the command before options that lack it."""
        return super().parse_args(ctx, self._named(args))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, `convert` for bare options."""
        return super().resolve_command(ctx, self._named(args))

    @staticmethod
    def _named(args: list[str]) -> list[str]:
        is_bare = not args or (args[0].startswith("-") and args[0] != "--help")
        return ["convert", *args] if is_bare else args


@click.group(cls=_Tool)
def main() -> None:
    """Turn images into a dataset for training and scoring, and look at one.

    Without a command, the options are those of `convert`.
    """


split_option = click.option(
    "--split",
    metavar="PART",
    help="Part of a source that comes in parts, e.g. test; default what is usually trained on.",
)

skip_bad_option = click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out images and folders that cannot be read, and list them, instead of stopping.",
)


@main.command(name="convert", cls=Command)
@click.option(
    "--source",
    required=True,
    metavar="PATH",
    help=f"What to convert: {SOURCES}. See docs/data.md.",
)
@click.option(
    "--dest",
    required=True,
    metavar="PATH",
    help="Zip or folder to write; an existing one needs --overwrite.",
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Take only the first N images of the source, in the order of their names; default all.",
)
@click.option(
    "--transform",
    type=click.Choice(
        ["none", "center-crop", "center-crop-wide", "bilinear", "celeba-128", "celeba-148"]
    ),
    default="none",
    show_default=True,
    help="How to reach the resolution: resize; crop the central square, then resize; crop wide "
    "images and put them on a black square, without those that are too small; resize bilinearly, "
    "MNIST without its black border, as in published DDPM code; or the crops of aligned CelebA of "
    "DDIM (128) and v-diffusion (148), then resize if a resolution is given.",
)
@click.option(
    "--resolution",
    type=Size(),
    metavar="WxH",
    help="Size of the output, e.g. 64x64; default the size of the source.",
)
@click.option(
    "--channels",
    type=click.Choice(["rgb", "gray"]),
    help="Make all images RGB or gray, e.g. a mix of both; default as the transform gives them.",
)
@split_option
@skip_bad_option
@click.option("--overwrite", is_flag=True, help="Replace the dataset that --dest has.")
@click.option(
    "--threads",
    "num_threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images to work on at once; the output is the same; default one a core, at most 8.",
)
def convert_command(source: str, dest: str, **options: object) -> None:
    """Convert images into a dataset for training and scoring.

    Labels come from the source: its dataset.json, the names of its top folders, sorted (numbers as
    numbers) and counted from 0, or what it is published with. Palette, CMYK and transparent images
    become RGB, on black. What is left out is counted on stderr.
    """
    from data.convert import convert

    num = convert(source, dest, **options)  # type: ignore[arg-type]
    print(f"wrote {num} images to {dest}")


@main.command(cls=Command)
@click.option("--source", required=True, metavar="PATH", help="What `convert` takes.")
@split_option
@skip_bad_option
def stats(source: str, split: str | None, skip_bad: bool) -> None:
    """Print mean, std and a sigma_data for the images; how many have which size and class."""
    from data.sources import open_source
    from data.statistics import measure, report

    for line in report(measure(open_source(source, split=split, skip_bad=skip_bad))):
        print(printable(line))


@main.command(cls=Command)
@click.option("--data", required=True, metavar="PATH", help="Zip or folder, as for train.py.")
def check(data: str) -> None:
    """Check that a dataset can be used: every image, sizes, labels, duplicates.

    Prints a line a problem, then what is in the dataset and what is left out of it; the exit code
    is 2 if there is any problem.
    """
    from data.check import facts_of, problems_of

    num = 0
    for problem in problems_of(data):
        print(printable(problem), flush=True)
        num += 1
    for fact in facts_of(data):
        print(printable(fact))
    if num:
        raise UserError(f"{data} has {num} problem{'s' if num > 1 else ''}, listed above")
    print(f"{printable(data)}: no problems")


@main.command(cls=Command)
@click.option("--clear", is_flag=True, help="Delete everything in it.")
def cache(clear: bool) -> None:
    """Show the decoded data sets that training keeps, or delete them.

    The environment variable DRIFTLESS_CACHE names the folder, DRIFTLESS_CACHE_GB its limit.
    """
    from data import cache as kept

    folder, limit = kept.cache_folder(), kept.cache_limit()
    if clear:
        print(f"{folder}: freed {kept.clear() / 1e6:.1f} MB")
        return
    found = kept.entries()
    for entry in found:
        print(f"{entry.size / 1e6:10.1f} MB  {printable(entry.path.name)}")
    total = sum(entry.size for entry in found)
    print(f"{total / 1e6:10.1f} MB of {limit / 1e6:.0f} MB in {folder}")


if __name__ == "__main__":
    main()
