"""The options of generate.py that belong to its modes. No torch here, so that `--help` is quick."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from generation import DEFAULT_MODE, MODES, ModeRow
from generation.option_types import Scales, TagGroups
from torch_utils.errors import UserError
from torch_utils.registry import lookup

# parameter -> its option; a mode gets those that its row reads
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "grid": click.option(
        "--grid",
        metavar="FILE",
        help="Also put all images, or strips, into one PNG; `each`: one row a class.",
    ),
    "frames": click.option(
        "--frames",
        type=click.IntRange(min=2),
        metavar="INT",
        help="Images of a strip: steps of the sampler, or from one seed to the next; the first "
        "and the last are included.  [default: 8 in strips, 24 in animations]",
    ),
    "animate": click.option(
        "--animate",
        metavar="FILE",
        help="Also make an animated WebP of all images together.",
    ),
    "fps": click.option(
        "--fps",
        type=click.FloatRange(min=0.1, max=100),
        metavar="FLOAT",
        help="Frames a second of the animation.  [default: 8]",
    ),
    "scales": click.option(
        "--scales",
        type=Scales(),
        metavar="LIST",
        help="Guidance scales of mode scales, e.g. 0,1,2,4, or w=0,0.5,1.",
    ),
    "tag_groups": click.option(
        "--tag-groups",
        type=TagGroups(),
        metavar="TAGS:TAGS",
        help="Rows of mode scales: every pair, e.g. of Male,Female:Smiling,Bangs.",
    ),
    "images": click.option(
        "--images",
        metavar="ZIP|DIR",
        help="Images to start from, as many as there are seeds or used in turn.",
    ),
    "mask": click.option(
        "--mask",
        metavar="PNG|DIR",
        help="White pixels are made anew, black ones are kept; one mask, or one for each image.",
    ),
    "latents": click.option(
        "--latents",
        metavar="NPZ",
        help="File of mode encode, whose latents are taken instead of the seeds'.",
    ),
    "known_noise": click.option(
        "--known-noise",
        type=click.Choice(["model", "fresh"]),
        help="Noise of the pixels that are kept: the model's own slope, or drawn in each step.  "
        "[default: model]",
    ),
    "resume": click.option(
        "--resume",
        is_flag=True,
        default=None,
        help="Make the images that are missing; keep those of an equal earlier command.",
    ),
}


def mode_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --mode and the options of all modes; `split_options` takes them apart."""
    for option in reversed(OPTIONS.values()):
        command = option(command)
    modes = ", ".join(f"{name} ({row.summary})" for name, row in MODES.items())
    of_mode = click.option(
        "--mode", metavar="NAME", default=DEFAULT_MODE, show_default=True, help=f"{modes}."
    )
    return of_mode(command)


def split_options(
    name: str, options: Mapping[str, Any]
) -> tuple[ModeRow, dict[str, Any], dict[str, Any], list[str]]:
    """Take the options of the modes out of those of a command.

    Args:
        name: the mode.
        options: what was given of `mode_options`, and others; None or a default where not given.

    Returns:
        The mode, its own options, the options that belong to no mode, and a warning for each option
        that another mode reads.

    Raises:
        UserError: there is no such mode, it lacks an option that it needs, or an option is given
            beside another one that replaces it.
    """
    row = lookup("mode", MODES, name)
    own = {key: options[key] for key in row.reads}
    for key in row.needs:
        if own[key] is None:
            raise UserError(f"mode {name} needs --{key.replace('_', '-')}")
    warnings = []
    for key in OPTIONS.keys() - own.keys():
        if options[key] is not None:
            readers = ", ".join(mode for mode, other in MODES.items() if key in other.reads)
            warnings.append(
                f"--{key.replace('_', '-')} has no effect: mode {name} does not read it, but "
                f"{readers} does"
            )
    rest = {key: value for key, value in options.items() if key not in OPTIONS}
    for key, other in row.replaces.items():
        if rest[other] is not None:
            raise UserError(f"--{other} and --{key}: give one of them")
        rest[other] = repr(max(own[key], key=lambda scale: abs(scale - 1)))  # checked as the others
    return row, own, rest, sorted(warnings)
