"""Train a diffusion model: read the config, make a run directory, run the loop."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from importers.spellings import explain
from torch_utils.command import Command, IntList, UrlOrPath
from torch_utils.errors import UserError, explain_names_with

if TYPE_CHECKING:
    from training.config import TrainingConfig

explain_names_with(explain)

PROBE_SECONDS = 10.0  # what a dry run may spend on trying steps
EXIT_STOPPED = 75  # EX_TEMPFAIL: run the same command again

# options that set a key of the config: flag, key, type, metavar, meaning
OPTIONS: list[tuple[str, str, Any, str, str]] = [
    ("--data", "data.path", str, "ZIP|DIR", "Dataset, or torchvision:NAME."),
    ("--cond", "data.cond", bool, "BOOL", "Train class-conditionally.  [default: 0]"),
    ("--xflip", "data.xflip", bool, "BOOL", "Add a mirrored copy of every image.  [default: 0]"),
    ("--arch", "network.name", str, "NAME", "Network, e.g. ncsnpp, adm.  [default: ddpmpp]"),
    (
        "--precond",
        "preconditioning.name",
        str,
        "NAME",
        "edm, vp, ve, iddpm, ddpm, vdiff, flow, cdm.  [default: edm]",
    ),
    ("--cbase", "network.model_channels", int, "INT", "Channels.  [default: the network's]"),
    ("--cres", "network.channel_mult", IntList(), "LIST", "Channel multipliers, one a level."),
    ("--dropout", "network.dropout", float, "P", "Dropout.  [default: the network's]"),
    ("--augment", "augment.p", float, "P", "Augmentation probability; EDM: 0.12.  [default: 0]"),
    ("--duration", "run.duration", str, "SPAN", "Length of the run, bare: Mimg.  [default: 200]"),
    ("--batch", "run.batch", int, "INT", "Global batch size.  [default: 512]"),
    ("--batch-gpu", "run.batch_gpu", int, "INT", "Size of micro-batches.  [default: what fits]"),
    ("--lr", "optimizer.lr", float, "FLOAT", "Learning rate.  [default: 0.001]"),
    ("--ema", "ema.halflife", str, "SPAN", "Half-life of the average, bare: Mimg.  [default: 0.5]"),
    ("--precision", "run.precision", str, "NAME", "auto, fp32, bf16 or fp16.  [default: fp32]"),
    ("--ls", "run.loss_scaling", float, "FLOAT", "First loss scale of fp16.  [default: 1]"),
    ("--remat", "run.remat", bool, "BOOL", "Less memory, a third more time.  [default: 0]"),
    ("--compile", "run.compile", bool, "BOOL", "Compile the blocks first.  [default: 0]"),
    ("--bench", "run.bench", bool, "BOOL", "Let cuDNN time its algorithms.  [default: 1]"),
    ("--seed", "run.seed", int, "INT", "Seed of all random numbers.  [default: 0]"),
    ("--tick", "run.tick", str, "SPAN", "Interval of status lines, bare: kimg.  [default: 50]"),
    ("--snap", "run.snap", str, "SPAN", "Interval of snapshots, bare: ticks.  [default: 50]"),
    ("--dump", "run.dump", str, "SPAN", "Interval of training states, bare: ticks.  [default: 50]"),
    ("--desc", "run.desc", str, "TEXT", "Suffix of the run directory's name."),
    ("--device", "run.device", str, "NAME", "auto, cpu or cuda.  [default: auto]"),
    ("--data-device", "run.data_device", str, "NAME", "Where the images lie.  [default: auto]"),
    (
        "--martingale_lambda",
        "loss.terms.consistency.lambda",
        float,
        "FLOAT",
        "Factor of the consistency term.  [default: 10]",
    ),
    (
        "--martingale_steps",
        "loss.terms.consistency.num_steps",
        int,
        "INT",
        "Nodes of the rollouts of the consistency term.  [default: 6]",
    ),
    (
        "--lamda",
        "loss.terms.sequence_aware.lambda",
        float,
        "FLOAT",
        "Factor of the sequence-aware term; 0 removes it.  [default: 1]",
    ),
    (
        "--num_consecutive_steps",
        "loss.terms.sequence_aware.K",
        int,
        "INT",
        "Steps that the sequence-aware term sums over, K.  [default: 2]",
    ),
]


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the table."""
    for flag, key, kind, metavar, meaning in reversed(OPTIONS):
        command = click.option(flag, key.replace(".", "__"), type=kind, metavar=metavar,
                               help=meaning)(command)  # fmt: skip
    return command


def wanted_of(values: dict[str, Any]) -> "TrainingConfig":
    """The config that the command's parameters ask for."""
    from training.wanted import wanted_config

    return wanted_config(
        values["config"],
        values["overrides"],
        options={key: values[key.replace(".", "__")] for _, key, *_ in OPTIONS},
        flags={key: flag for flag, key, *_ in OPTIONS},
        resume=values["resume"],
    )


@click.command(
    cls=Command,
    needs_less="take smaller micro-batches (--batch-gpu), or keep less for the backward pass "
    "(--remat=1); what was saved before is intact",
)
@click.option("--outdir", metavar="DIR", help="Where run directories go.")
@click.option("--nosubdir", is_flag=True, help="Write into --outdir itself.")
@click.option("--config", metavar="FILE", help="YAML recipe; the options below override it.")
@config_options
@click.option(
    "--resume",
    metavar="FILE|RUNDIR|latest",
    help="Go on with a run; `latest` is the newest in --outdir with this config, and starts one "
    "if there is none.",
)
@click.option(
    "--allow-config-change",
    is_flag=True,
    help="Go on with --resume although the config differs from the run's.",
)
@click.option(
    "--transfer",
    type=UrlOrPath(),
    metavar="FILE|DIR|URL|NAME",
    help="Take the first weights from a snapshot, a run's newest, or any checkpoint.",
)
@click.option(
    "--profile",
    type=int,
    metavar="STEPS",
    help="Write a profile of so many steps to the run directory; training goes on.",
)
@click.option(
    "-n",
    "--dry-run",
    is_flag=True,
    help="Print what would be trained, as a recipe, and what it would cost; and exit.",
)
@click.option(
    "--probe",
    type=float,
    metavar="SECONDS",
    help="What --dry-run may spend on trying steps; 0: no times.  [default: 10]",
)
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
def main(nosubdir: bool, dry_run: bool, probe: float | None, **values: Any) -> int:
    """Train a diffusion model on a dataset zip or folder.

    Arguments of the form section.key=value set any key of the config, e.g.
    optimizer.clip_norm=1 sampler.steps=32. A SPAN is a number of images with a suffix: 1000img,
    50k, 200M, 20ep (epochs), 600it (steps); a bare number has EDM's unit, named below. Ctrl-C or
    SIGTERM saves and stops after the current step, with exit code 75; --resume goes on.
    """
    from torch_utils.progress import print_line
    from torch_utils.streams import outlive_readers
    from training import launch

    if probe is not None and not dry_run:
        raise UserError("--probe is for --dry-run: a run that trains is not tried before")
    if probe is not None and not 0 <= probe < float("inf"):
        raise UserError(f"--probe is {probe:g}: give seconds, or 0 for none")
    if dry_run and values["profile"] is not None:
        raise UserError("--profile needs steps, and --dry-run takes none: give one of them")
    keys = ("outdir", "resume", "transfer", "allow_config_change", "profile")
    start = launch.Start(
        recipe=values["config"], subdir=not nosubdir, **{key: values[key] for key in keys}
    )
    wanted = wanted_of(values)
    outlive_readers()
    if dry_run:
        recipe = launch.dry_run(
            wanted,
            start,
            say=lambda line: click.echo(line, err=True),
            probe=PROBE_SECONDS if probe is None else probe,
        )
        click.echo(recipe, nl=False)
        return 0
    result = launch.run(wanted, start, say=print_line, has_bar=True, heeds_signals=True)
    return 0 if result.is_complete else EXIT_STOPPED


if __name__ == "__main__":
    main()
