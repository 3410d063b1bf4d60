"""What programs write of the manual: tables from the registries, and the help of every command.

`make docs-tables` brings all of it up to date; tests say when to. The place of a table is what lies
between `<!-- name -->` and `<!-- end -->`; help texts are the files of docs/help.
"""

import ast
import importlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import torch

import losses
from data.sources import KINDS
from diffusion import GRIDS, SCHEDULES, preconditioning
from diffusion.outputs import OUTPUTS
from diffusion.preconditioning import PRESETS
from importers.spellings import FLAG_SPELLINGS, SPELLINGS, SYSTEMS
from samplers import SAMPLERS
from tests.few_step_table import HEAD, few_step_caption, few_step_rows
from tests.samplers.test_orders import ON_DEFAULT_GRIDS
from tests.test_layering import ALLOWED
from torch_utils.registry import Row

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SCRIPTS = ("train", "generate", "fid", "dataset_tool", "snapshot_tool")
HELP_WIDTH = 78  # of the text, which is that of a terminal of 80 columns or more
STEPS = 18  # the number of steps for which calls are counted
SIGMAS = (0.01, 1.0, 100.0)  # at which weights of the network's error are shown

# what a text of SPELLINGS names that can be looked up: launchers, programs, options, keys
SECTIONS = "data|augment|network|preconditioning|loss|optimizer|ema|sampler|preview|evaluate|run"
_VALUE = r"=(?:\{[^}]*\}|[^\s,;()]+)"
NAMED = re.compile(
    r"torchrun --\w+|\w+\.py(?: calc)?(?: --\w+)?"
    rf"|--[\w-]+(?:{_VALUE})?|\b(?:{SECTIONS})\.\w+(?:{_VALUE})?"
)


def registry_table(first: str, rows: Mapping[str, Row]) -> str:
    """Name, meaning and options of every row of a registry."""
    body = [[f"`{name}`", row.summary, options_of(row)] for name, row in rows.items()]
    return table([first, "what it is", "options"], body)


def sampler_table() -> str:
    """One row for each sampler."""
    body = [
        [
            f"`{name}`",
            row.summary,
            f"`{row.grid}`",
            f"{row.order:g}{f' ({row.order_note})' if row.order_note else ''}",
            f"{ON_DEFAULT_GRIDS.get(name, math.nan):.2f}",
            str(row.num_calls(STEPS, row.options, True)),
            str(row.least_steps),
            "yes" if row.is_stochastic(row.options) else "no",
            options_of(row),
            row.paper,
        ]
        for name, row in SAMPLERS.items()
    ]
    calls = f"calls for {STEPS} steps"
    head = ["sampler", "what it is", "grid", "order", "measured", calls, "least steps"]
    return table([*head, "draws noise", "options", "source"], body)


def preset_table() -> str:
    """One row for each preconditioning, with the objective that it was published with."""
    body = []
    for name, row in PRESETS.items():
        preset, schedule = preconditioning.create(name), row.options["schedule"]
        objective = losses.PUBLISHED_OBJECTIVES[name]
        body.append(
            [
                f"`{name}`",
                f"`{preset.output}`",
                f"`{preset.input_scale}`",
                f"`{preset.conditioning}`",
                f"`{schedule}`" if schedule else "none",
                f"{preset.sigma_min:.3g} to {preset.sigma_max:.4g}",
                f"`{objective.noise_level}`",
                f"`{objective.weight}`",
                objective.reduction,
            ]
        )
    head = ["preset", "output", "input scale", "conditioning", "schedule", "noise levels"]
    return table([*head, "trained at", "weight", "reduction"], body)


def effective_weight_table() -> str:
    """w(sigma) c_out(sigma)^2, the weight of the network's own error, at three noise levels."""
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    chosen = [name for name in losses.WEIGHTS if name != "vlb"]  # that one depends on the levels
    body = []
    for name, output in OUTPUTS.items():
        if output.num_parts > 1:
            continue
        _, (scale,) = output.coefficients(sigma, 0.5)
        cells = []
        for weight in chosen:
            row = losses.WEIGHTS[weight]
            values = row.load()(**row.options)(sigma) * scale.square()
            is_one = torch.allclose(values, torch.ones_like(values))
            cells.append("**1**" if is_one else ", ".join(f"{v:.2g}" for v in values.tolist()))
        body.append([f"`{name}`", *cells])
    return table(["output", *(f"`{weight}`" for weight in chosen)], body)


def source_table() -> str:
    """One row for each kind of source that dataset_tool.py takes."""
    body = [[row.summary, row.path, row.labels] for row in reversed(tuple(KINDS.values()))]
    return table(["source", "`--source`", "labels"], body)


def layer_table() -> str:
    """What each package is, and which packages it may import."""
    body = []
    for name, allowed in ALLOWED.items():
        meaning = (ast.get_docstring(_parsed(f"{name}/__init__.py")) or "").split("\n")[0]
        below = ", ".join(f"`{other}`" for other in ALLOWED if other in allowed)
        body.append([f"`{name}`", meaning.removesuffix("."), below or "nothing of ours"])
    return table(["package", "what it is", "may import"], body)


def names_in(file: str) -> set[str]:
    """Functions of a file of ours, and methods as Class.method."""
    found = set()
    for node in _parsed(file).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (inner for inner in node.body if isinstance(inner, ast.FunctionDef))
            found |= {f"{node.name}.{method.name}" for method in methods}
    return found


def _parsed(file: str) -> ast.Module:
    return ast.parse((DOCS.parent / file).read_text(encoding="utf-8"))


def spelling_table(system: str) -> str:
    """What a published system's names are called here."""
    flags = {f"{'--' if len(name) > 1 else '-'}{name}": row for name, row in FLAG_SPELLINGS.items()}
    body = [
        [f"`{name}`", marked(row.ours) if row.exists else f"none: {marked(row.ours)}"]
        for name, row in [*sorted(SPELLINGS.items()), *sorted(flags.items())]
        if system in row.systems
    ]
    return table([system, "here"], body)


def marked(text: str) -> str:
    """A text with what it names set as code."""
    return NAMED.sub(lambda found: f"`{found[0]}`", text)


def options_of(row: Row) -> str:
    """Every option with its default, and what else it can be where that is one of some names.

    Without a default the model or the grid decides.
    """
    shown = []
    for key, value in row.options.items():
        others = [name for name in row.choices.get(key, ()) if name != value]
        entry = f"`{key}`" if value is None else f"`{key}={_value(value)}`"
        shown.append(f"{entry} ({', '.join(others)})" if others else entry)
    return ", ".join(shown)


def _value(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Rows in Markdown."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells])


TABLES: dict[str, Callable[[], str]] = {
    "layers": layer_table,
    "sources": source_table,
    "samplers": sampler_table,
    "few steps": lambda: f"{table(HEAD, few_step_rows())}\n\n{few_step_caption()}",
    "grids": lambda: registry_table("grid", GRIDS),
    "schedules": lambda: registry_table("schedule", SCHEDULES),
    "presets": preset_table,
    "noise levels": lambda: registry_table("noise level", losses.NOISE_LEVELS),
    "samplings": lambda: table(
        ["sampling", "what it is"], [[f"`{key}`", text] for key, text in losses.SAMPLINGS.items()]
    ),
    "weights": lambda: registry_table("weight", losses.WEIGHTS),
    "effective weights": effective_weight_table,
    "terms": lambda: registry_table("term", losses.TERMS),
    **{
        f"spellings of {system}": lambda system=system: spelling_table(system)  # type: ignore[misc]
        for system in SYSTEMS
    },
}


def updated(page: str) -> str:
    """A page with its tables as they are now.

    Raises:
        ValueError: a place for a table that does not exist, or one without an end.
    """

    def filled(found: re.Match[str]) -> str:
        name, rest = found[1], found[2]
        if name not in TABLES or not rest.endswith("<!-- end -->"):
            raise ValueError(f"the page has no whole place for a table: {name}")
        return f"<!-- {name} -->\n{TABLES[name]()}\n<!-- end -->"

    return re.sub(
        r"<!-- (?!end -->)(.*?) -->\n((?:(?!<!--)[\s\S])*(?:<!-- end -->)?)", filled, page
    )


def helps() -> Iterator[tuple[list[str], str]]:
    """The words of every command, those of the scripts' subcommands included, and its help."""
    for script in SCRIPTS:
        command: click.Command = importlib.import_module(script).main
        yield from _helps(command, click.Context(command, info_name=f"{script}.py"))


def _helps(command: click.Command, context: click.Context) -> Iterator[tuple[list[str], str]]:
    context.terminal_width = HELP_WIDTH
    yield context.command_path.split(), f"{command.get_help(context)}\n"
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _helps(inner, click.Context(inner, parent=context, info_name=name))


def help_page(words: list[str]) -> Path:
    """The file that has the help of a command."""
    return DOCS / "help" / f"{'-'.join(words).replace('.py', '')}.txt"


def write(target: Path, text: str) -> None:
    """Write a file of the manual, and say so, unless it has this text."""
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")
        print(f"updated {target.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    for target in PAGES:
        write(target, updated(target.read_text(encoding="utf-8")))
    for words, text in helps():
        write(help_page(words), text)
