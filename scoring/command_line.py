"""What the commands of `fid.py` share: options and lines. No torch here, as `--help` needs none."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from metrics import detectors
from metrics.table import METRICS, metric
from torch_utils.command import UrlOrPath, device_option
from torch_utils.errors import UserError
from torch_utils.registry import Row

if TYPE_CHECKING:
    from scoring.judge import Criteria

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _known_detector(ctx: click.Context, param: click.Parameter, value: str) -> str:
    detectors.row(value)
    return value


def _metrics(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise UserError(f"--metrics={value}: give some of {', '.join(METRICS)}")
    for name in names:
        metric(name)
    return names


def _summaries(table: Mapping[str, Row]) -> str:
    return "; ".join(f"{name}: {row.summary}" for name, row in table.items()) + "."


_DETECTOR = [
    click.option(
        "--detector",
        default=detectors.DEFAULT,
        show_default=True,
        callback=_known_detector,
        metavar=f"[{'|'.join(detectors.DETECTORS)}]",
        help=_summaries(detectors.DETECTORS),
    ),
    click.option(
        "--weights", metavar="FILE", help="Weights for the detector, instead of the usual ones."
    ),
]
_BATCH = click.option(
    "--batch",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Images at a time; does not change the numbers.",
)
_METRICS = click.option(
    "--metrics",
    callback=_metrics,
    metavar="LIST",
    help=f"{_summaries(METRICS)}  [default: fid, and is if the detector has classes]",
)
_REF = click.option(
    "--ref",
    type=UrlOrPath(),
    metavar="FILE|DATA|URL|NAME",
    help="What to compare with: statistics (.npz, .npy, .pkl), a data set, or a name such as "
    "edm:cifar10-32x32.",
)
_JSON = click.option(
    "--json", "json_file", metavar="FILE", help="Also write everything to this file."
)
rng_device_option = click.option(
    "--rng-device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where to draw random numbers; cuda gives the images that EDM gives on a GPU.",
)


def _together(options: Iterable[Decorator]) -> Decorator:
    """Several options as one decorator, shown in this order."""
    wanted = list(options)

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(wanted):
            command = option(command)
        return command

    return add


reference_options = _together([*_DETECTOR, _BATCH, device_option])
judging_options = _together([_REF, _METRICS, *_DETECTOR, _JSON, _BATCH, device_option])

nll_options = _together(
    [
        click.option(
            "--num", type=click.IntRange(1), help="Images to use, a subset.  [default: all]"
        ),
        click.option(
            "--held-out",
            type=click.IntRange(1),
            metavar="INT",
            help="Use the images that training with data.max_size=INT leaves out.",
        ),
        click.option(
            "--subset-seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Picks the images of --num or --held-out, as data.subset_seed does.",
        ),
        click.option(
            "--labels/--no-labels",
            "with_labels",
            default=True,
            show_default=True,
            help="Condition a model with labels on those of the data, if they have any.",
        ),
        click.option(
            "--steps",
            type=click.IntRange(2),
            default=16,
            show_default=True,
            help="Steps of the ODE, six network calls and gradients each.",
        ),
        click.option(
            "--probes",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Random vectors an image to estimate the divergence; more lessen the error.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Draws dequantization and random vectors.",
        ),
        click.option(
            "--sigma_min",
            type=click.FloatRange(0, min_open=True),
            help="Noise level at which the density is taken.  [default: the sampler's lowest]",
        ),
        click.option(
            "--sigma_max",
            type=click.FloatRange(0, min_open=True),
            help="Noise level of pure noise.  [default: where the sampler starts]",
        ),
        click.option("--log", metavar="FILE", help="Append a line with the number."),
        *[_JSON, _BATCH, device_option],
    ]
)


def criteria_of(options: dict[str, Any]) -> "Criteria":
    """How to score, taken out of the options of a command."""
    from scoring.judge import Criteria

    return Criteria(
        detector=options.pop("detector"),
        weights=options.pop("weights"),
        metrics=options.pop("metrics", None),
        reference=options.pop("ref", None),
    )


def say_all(lines: Iterable[str]) -> None:
    """Print lines on stdout at once, so that a long command shows what it has."""
    for line in lines:
        click.echo(line)


def warn_all(lines: Iterable[str]) -> None:
    """Print warnings on stderr."""
    for line in lines:
        click.echo(f"warning: {line}", err=True)


def say_left_out(path: str) -> None:
    """Print which pictures of a folder are not scored, because generate.py made them as grids."""
    from scoring.images import own_grids

    if grids := own_grids(path):
        click.echo(f"left out: {', '.join(sorted(grids))} (grids of generate.py)")
