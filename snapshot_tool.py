"""Look into models, convert, compare and average them; foreign ones without executing anything."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from importers.command_line import FORM
from importers.spellings import explain
from torch_utils.command import Command, Group, UrlOrPath
from torch_utils.errors import explain_names_with

if TYPE_CHECKING:
    from models.compare import Difference

explain_names_with(explain)

model_config_option = click.option(
    "--model-config",
    metavar="YAML",
    help="Facts that a foreign checkpoint's tensors do not tell.  [default: the file beside it]",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(["ema", "raw"]),
    default="ema",
    show_default=True,
    help="Which weights of a foreign checkpoint that has both.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is at --dest.")


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Comma-separated numbers: `0.25,0.75`."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> list[float]:
        """Parse the list."""
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers like 0.25,0.75")


@click.group(cls=Group)
def main() -> None:
    """Look into models, convert, compare and average them.

    A model is a snapshot, a run directory for its newest one, or any foreign checkpoint that
    generate.py takes.
    """


@main.command(cls=Command)
@click.argument("model", metavar=FORM, type=UrlOrPath())
@model_config_option
@weights_option
def info(model: str, model_config: str | None, weights: str) -> None:
    """Print what a model is: kind, size, progress, average, config.

    Of a run's directory, also its snapshots and states with their progress, and the snapshots with
    the best scores; the rest is about its newest snapshot.
    """
    from pathlib import Path

    import yaml

    from importers.described import described
    from importers.opening import find_model, read_model
    from training.described import described_run, is_run

    record: dict[str, Any] = {}
    if is_run(Path(model)):
        record["run"] = described_run(Path(model))
    if not record or record["run"]["snapshots"]:
        found = read_model(find_model(model), model_config=model_config, weights=weights)
        record |= described(found)
    click.echo(yaml.safe_dump(record, sort_keys=False), nl=False)


@main.command(cls=Command)
@click.argument("model", metavar=FORM, type=UrlOrPath())
@click.option("--dest", metavar="PATH", required=True, help="File or folder to write.")
@click.option(
    "--to",
    "form",
    type=click.Choice(["driftless", "state-dict", "diffusers"]),
    default="driftless",
    show_default=True,
    help="A snapshot of ours, its weights alone, or a folder of diffusers.",
)
@overwrite_option
@model_config_option
@weights_option
def convert(
    model: str, dest: str, form: str, overwrite: bool, model_config: str | None, weights: str
) -> None:
    """Write a model in another form: what generate.py makes of both is the same."""
    from importers.converting import check_destination
    from importers.converting import convert as write
    from importers.opening import find_model, read_model

    path = check_destination(dest, form, overwrite=overwrite)
    found = read_model(find_model(model), model_config=model_config, weights=weights)
    for line in [*found.notes, *write(found, path, form)]:
        click.echo(line)
    click.echo(f"{found.family} {found.path} -> {form} {path}")


@main.command(cls=Command)
@click.argument("first", metavar=f"{FORM}", type=UrlOrPath())
@click.argument("second", metavar=f"{FORM}", type=UrlOrPath())
@click.option("--tensors", is_flag=True, help="One line for each tensor, not for each block.")
def diff(first: str, second: str, tensors: bool) -> int:
    """Compare two models. The exit code is 0 if they are equal, 1 if they differ.

    Compared are the config and all that a snapshot says beside it, then the weights: the largest
    difference, and the norm of all differences relative to that of the first model's weights.
    """
    from importers.opening import find_model, open_model
    from models.compare import differing_blocks, differing_tensors, info_differences, renamed

    a, b = (open_model(find_model(text)) for text in (first, second))
    lines = info_differences(a.info, b.info)
    ours, theirs = a.denoiser.state_dict(), b.denoiser.state_dict()
    pairs = renamed(ours, theirs)
    if pairs:
        old, new = next(iter(pairs.items()))
        lines.append(f"the tensors differ in {len(pairs)} names only: {old} -> {new}, ...")
    elif found := differing_tensors(ours, theirs):
        lines.append(f"{len(found)} of {len({*ours, *theirs})} tensors differ")
        lines += _table(found if tensors else differing_blocks(ours, theirs, a.info.model))
    for line in lines or ["equal"]:
        click.echo(line)
    return 1 if lines else 0


def _table(rows: "Sequence[Difference]") -> list[str]:
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  tensors    largest   relative"]
    for row in rows:
        numbers = row.problem or f"{row.largest:9.3g}  {row.relative:9.3g}"
        lines.append(f"{row.name:{width}}  {row.count:7}  {numbers}")
    return lines


@main.command(cls=Command)
@click.argument("models", metavar=f"{FORM}...", type=UrlOrPath(), nargs=-1, required=True)
@click.option("--dest", metavar="FILE", required=True, help="Snapshot to write.")
@click.option(
    "--weights", type=Numbers(), metavar="LIST", help="Their shares.  [default: equal ones]"
)
@overwrite_option
def average(
    models: tuple[str, ...], dest: str, weights: list[float] | None, overwrite: bool
) -> None:
    """Average the weights of models of one config."""
    from importers.averaging import averaged
    from importers.converting import check_destination, write_weights

    path = check_destination(dest, "driftless", overwrite=overwrite)
    found, description = averaged(models, weights)
    write_weights(path, found, description)
    click.echo(f"the average of {len(models)} models -> {path}")


@main.command(cls=Command)
@click.option("--run", metavar="DIR", required=True, help="Run directory with ema.posthoc.")
@click.option(
    "--length", type=float, metavar="FLOAT", required=True, help="Of the average, sigma_rel."
)
@click.option("--images", type=int, metavar="INT", help="Progress.  [default: the newest]")
@click.option("--dest", metavar="FILE", required=True, help="Snapshot to write.")
@overwrite_option
def ema(run: str, length: float, images: int | None, dest: str, overwrite: bool) -> None:
    """Make the average of any length of a run, after training (Karras et al. 2024).

    It is made of the averages that a run with ema.posthoc=on stores with its snapshots.
    """
    from importers.converting import check_destination, write_weights
    from models.reconstruct import plan

    path = check_destination(dest, "driftless", overwrite=overwrite)
    made = plan(run, length, images)
    write_weights(path, made.weights(), made.info)
    if made.fit.is_poor:
        click.echo(f"warning: {made.caution}", err=True)
    click.echo(f"{made.summary} -> {path}")


if __name__ == "__main__":
    main()
