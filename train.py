"""Train a diffusion model: read the config, make a run directory, run the loop."""

from collections.abc import Callable
from typing import Any

import click

from torch_utils.command import Command, IntList
from torch_utils.errors import UserError

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
    ("--cres", "network.channel_mult", IntList(), "LIST", "Their multipliers, one a level."),
    ("--dropout", "network.dropout", float, "P", "Dropout.  [default: the network's]"),
    ("--augment", "augment.p", float, "P", "Augmentation probability; EDM: 0.12.  [default: 0]"),
    ("--duration", "run.duration", str, "SPAN", "Length of the run, bare: Mimg.  [default: 200]"),
    ("--batch", "run.batch", int, "INT", "Global batch size.  [default: 512]"),
    ("--batch-gpu", "run.batch_gpu", int, "INT", "Size of micro-batches.  [default: what fits]"),
    ("--lr", "optimizer.lr", float, "FLOAT", "Learning rate.  [default: 0.001]"),
    ("--ema", "ema.halflife", str, "SPAN", "Half-life of the average, bare: Mimg.  [default: 0.5]"),
    ("--precision", "run.precision", str, "NAME", "fp32, bf16 or fp16.  [default: fp32]"),
    ("--ls", "run.loss_scaling", float, "FLOAT", "First loss scale of fp16.  [default: 1]"),
    ("--remat", "run.remat", bool, "BOOL", "Less memory, a third more time.  [default: 0]"),
    ("--bench", "run.bench", bool, "BOOL", "Let cuDNN time its algorithms.  [default: 1]"),
    ("--seed", "run.seed", int, "INT", "Of everything random.  [default: 0]"),
    ("--tick", "run.tick", str, "SPAN", "Interval of status lines, bare: kimg.  [default: 50]"),
    ("--snap", "run.snap", str, "SPAN", "Interval of snapshots, bare: ticks.  [default: 50]"),
    ("--dump", "run.dump", str, "SPAN", "Interval of training states, bare: ticks.  [default: 50]"),
    ("--desc", "run.desc", str, "TEXT", "Suffix of the run directory's name."),
    ("--device", "run.device", str, "NAME", "auto, cpu or cuda.  [default: auto]"),
    ("--data-device", "run.data_device", str, "NAME", "Where the images lie.  [default: auto]"),
]

# options that change terms of the loss, see training.published: flag, type, metavar, meaning
TERM_OPTIONS: list[tuple[str, Any, str, str]] = [
    ("--martingale_lambda", float, "FLOAT", "Factor of the consistency term.  [default: 10]"),
    ("--martingale_steps", int, "INT", "Nodes of its rollouts.  [default: 6]"),
    ("--lamda", float, "FLOAT", "Factor of the sequence-aware term; 0 for none.  [default: 1]"),
    ("--num_consecutive_steps", int, "INT", "Steps that it sums over, K.  [default: 2]"),
]


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of the tables."""
    for flag, kind, metavar, meaning in reversed(TERM_OPTIONS):
        command = click.option(flag, type=kind, metavar=metavar, help=meaning)(command)
    for flag, key, kind, metavar, meaning in reversed(OPTIONS):
        command = click.option(flag, key.replace(".", "__"), type=kind, metavar=metavar,
                               help=meaning)(command)  # fmt: skip
    return command


def as_tree(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as a config tree."""
    tree: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None:
            section, key = name.split("__")
            tree.setdefault(section, {})[key] = value
    return tree


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
    metavar="SNAPSHOT|RUNDIR",
    help="Take the first weights from a snapshot, or from a run's newest.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Print the resolved config and exit.")
@click.argument("overrides", nargs=-1, metavar="[SECTION.KEY=VALUE]...")
def main(
    outdir: str | None,
    config: str | None,
    nosubdir: bool,
    dry_run: bool,
    resume: str | None,
    transfer: str | None,
    allow_config_change: bool,
    overrides: tuple[str, ...],
    **options: Any,
) -> int:
    """Train a diffusion model on a dataset zip or folder.

    Arguments of the form section.key=value set any key of the config, e.g.
    optimizer.clip_norm=1 sampler.steps=32. A SPAN is a number of images with a suffix: 1000img,
    50k, 200M, 20ep (epochs), 600it (steps); a bare number has EDM's unit, named below. Ctrl-C or
    SIGTERM saves and stops after the current step, with exit code 75; --resume goes on.
    """
    from torch_utils.distributed import world
    from torch_utils.streams import outlive_readers
    from training import launch
    from training.data import load_training_data
    from training.loop import train
    from training.published import preset_of, with_terms
    from training.recipes import dump_config, load_config
    from training.resume import locked, read_run_config, run_of
    from training.run_log import RunLog
    from training.setup import check

    if resume not in (None, "latest") and transfer is not None:
        raise UserError("--resume and --transfer exclude each other: a resumed run has weights")
    base = None
    if resume not in (None, "latest"):
        base = read_run_config(run_of(resume)).model_dump()
        base["data"]["key"] = base["run"]["batch_gpu"] = None  # found anew, and compared
    elif outdir is None:
        raise UserError("missing option --outdir=DIR: where run directories go")
    given = {flag[2:]: options.pop(flag[2:]) for flag, *_ in TERM_OPTIONS}
    options["preconditioning__name"], is_cdm = preset_of(options["preconditioning__name"])
    flags = {key: flag for flag, key, *_ in OPTIONS}
    wanted = load_config(config, as_tree(options), overrides, base=base, flags=flags)
    wanted = with_terms(wanted, given, is_cdm=is_cdm)
    if transfer is not None:
        wanted = launch.without_ema_rampup(wanted)
    if wanted.data.path is None:
        raise UserError("no data set: give --data=ZIP|DIR or data.path in the recipe")

    outlive_readers()
    with world(wanted.run.device) as here:
        data = load_training_data(wanted.data)
        here.meet()  # each machine decodes for itself
        check(launch.settle(wanted, data, here), data)
        plan, notes = None, []
        if resume == "latest":
            plan, notes = launch.resume_latest(
                outdir, wanted, data, here, allow_config_change=allow_config_change
            )
        elif resume is not None:
            plan = launch.resume(
                resume, wanted, data, here, allow_config_change=allow_config_change
            )
        if plan is None and transfer is not None:
            check(launch.settle(wanted, data, here), data, transfer)
        elif plan is not None and transfer is not None:
            plan.notes.append(f"--transfer={transfer} is for a new run: this one has weights")
        if dry_run:
            shown = plan.config if plan is not None else None
            if shown is None:
                shown, remarks = launch.planned(wanted, data, here, recipe=config)
                notes = [*notes, *remarks]
            if here.is_main:
                click.echo("".join(f"{line}\n" for line in notes), err=True, nl=False)
                click.echo(dump_config(shown), nl=False)
            return 0
        if plan is None:
            if here.is_main and notes:
                click.echo("\n".join(notes))
            plan = launch.start(outdir, wanted, data, here, subdir=not nosubdir, recipe=config)
        if plan.is_complete:
            if here.is_main:  # nothing is written: the folder may be for reading only
                click.echo(f"already done: {plan.seen:,} images; {plan.folder}")
            return 0
        log = RunLog(plan.folder if here.is_main else None)
        with locked(plan.folder, here):
            plan = launch.claim(plan, here)
            for note in plan.notes:
                log.say(note)
            is_complete = train(
                plan.config, data, plan.folder, here, state=plan.state, transfer_from=transfer
            )
    return 0 if is_complete else EXIT_STOPPED


if __name__ == "__main__":
    main()
