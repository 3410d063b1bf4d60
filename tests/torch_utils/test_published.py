"""Published names: what they stand for exists, and what an unknown name is answered with."""

import importlib
import re

import click
import pytest
from torch.distributed.run import get_args_parser

import losses
from diffusion import GRIDS, SCHEDULES
from diffusion.outputs import OUTPUTS
from networks import NETWORKS
from samplers import SAMPLERS
from samplers.command_line import OPTIONS as SAMPLER_OPTIONS
from samplers.options import WRAPPING
from tests.manual import NAMED, SECTIONS
from tests.test_docs import SCRIPTS
from torch_utils.errors import UserError, unknown_name
from torch_utils.published import SPELLINGS, SYSTEMS, hint
from torch_utils.registry import Row
from training.config import TrainingConfig
from training.recipes import load_config
from training.setup import create_objective


def flags_of(script: str) -> set[str]:
    """Every option of a program and its subcommands."""
    command: click.Command = importlib.import_module(script).main
    inner = list(command.commands.values()) if isinstance(command, click.Group) else []
    parameters = [p for c in [command, *inner] for p in c.params]
    return {flag for p in parameters for flag in (*p.opts, *p.secondary_opts)}


FLAGS = {script: flags_of(script) for script in SCRIPTS}


def keys_of(section: str) -> set[str]:
    """The keys that a section of the config may have, whatever its name."""
    if section == "network":
        return {"name"} | {key for row in NETWORKS.values() for key in row.options}
    if section == "sampler":
        rows: list[Row] = [*SAMPLERS.values(), *GRIDS.values()]
        return {"name", "steps", "grid", *WRAPPING} | {key for r in rows for key in r.options}
    annotation = TrainingConfig.model_fields[section].annotation
    return set(getattr(annotation, "model_fields", {}))


INNER = {
    "schedule": {key for row in SCHEDULES.values() for key in row.options} | {"name"},
    "noise_level": {key for row in losses.NOISE_LEVELS.values() for key in row.options} | {"name"},
    "guidance": {"scale", "w", "interval", "clip", "batch"},
}


def assert_exists(named: str) -> None:
    """An option, key or program that a text names is there."""
    flag, _, value = named.partition("=")
    words = flag.split(" ")
    flag = words[-1]
    if words[0] == "torchrun":
        assert flag in get_args_parser()._option_string_actions, named
    elif words[0].endswith(".py"):
        script = words[0].removesuffix(".py")
        assert script in SCRIPTS, named
        if flag.startswith("--"):
            assert flag in FLAGS[script], named
        elif len(words) > 1:
            assert words[1] in importlib.import_module(script).main.commands, named
    elif named.startswith("--"):
        assert flag in FLAGS["train"] | FLAGS["generate"] | FLAGS["fid"], named
    else:
        section, key = flag.split(".")
        assert key in keys_of(section), named
        for inner in re.findall(r"(\w+):", value):
            assert inner in INNER[key], named
        if value and "..." not in value:
            load_config(None, {}, [named])


NAMES = {*SCHEDULES, *losses.NOISE_LEVELS, *losses.WEIGHTS, *losses.TERMS, *OUTPUTS}


@pytest.mark.parametrize("name", SPELLINGS)
def test_what_a_spelling_stands_for_exists(name: str) -> None:
    row = SPELLINGS[name]
    assert row.systems
    assert set(row.systems) <= set(SYSTEMS)
    found = NAMED.findall(row.ours)
    sections = re.findall(r"^the section (\w+)$", row.ours)
    if row.exists:
        assert found or sections, row.ours
    for section in sections:
        assert section in SECTIONS.split("|")
    for named in found:
        assert_exists(named)
    # names of ours in the text; published ones stand in parentheses
    text = re.sub(r"\(.*?\)", "", NAMED.sub("", row.ours))
    for word in re.findall(r"\w+_\w+", text):
        assert word in NAMES, row.ours


def test_the_sections_are_those_of_the_config() -> None:
    assert set(SECTIONS.split("|")) == set(TrainingConfig.model_fields)


def test_no_published_spelling_is_a_name_of_ours() -> None:
    """A hint must not fire for what exists here in another place."""
    rows = [
        *SCHEDULES.values(), *GRIDS.values(), *NETWORKS.values(), *SAMPLERS.values(),
        *losses.NOISE_LEVELS.values(), *losses.WEIGHTS.values(), *losses.TERMS.values(),
    ]  # fmt: skip
    ours = {key for row in rows for key in row.options} | set(TrainingConfig.model_fields)
    ours |= {key for section in TrainingConfig.model_fields for key in keys_of(section)}
    ours |= {flag.lstrip("-").replace("-", "_") for flags in FLAGS.values() for flag in flags}
    ours |= {key.split(".")[-1] for _, key, _, _ in SAMPLER_OPTIONS}
    assert not ours & SPELLINGS.keys()


@pytest.mark.parametrize(
    ("kind", "name", "known", "words"),
    [
        # a published name
        ("key in x:", "optimizer.grad_clip", ["optimizer.lr", "optimizer.clip_norm"],
         "here grad_clip of SA-DPM is optimizer.clip_norm"),
        ("option of network ddpm:", "ch_mult", ["num_blocks", "channel_mult"],
         "here ch_mult of SA-DPM is network.channel_mult"),
        ("key in x:", "run.ni", ["run.batch"], "ni of SA-DPM, DDPM implementation has no"),
        # a known name that is nearly equal is more likely
        ("option of x:", "timestep", ["timesteps"], "did you mean 'timesteps'?"),
        ("option of x:", "timesteps", ["timestep"], "did you mean 'timestep'?"),
        ("key in x:", "optimizer.beta1", ["optimizer.betas"], "did you mean 'optimizer.betas'?"),
        # the section that keys share does not make them alike
        ("key in x:", "preconditioning.ema_rate", ["preconditioning.quantize"],
         "here ema_rate of SA-DPM"),
        ("key in x:", "preconditioning.zzz", ["preconditioning.name"], "known are"),
        # only options and keys have published names: a class may be called anything
        ("class", "objective", ["cat", "dog"], "known are cat, dog"),
        ("class", "ch", ["each", "chair"], "did you mean"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_explained(kind: str, name: str, known: list[str], words: str) -> None:
    assert words in str(unknown_name(kind, name, known))


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("{name: uniform_time, num_step: 4}", "'num_step': did you mean 'num_steps'?"),
        ("{name: lognormal, num_steps: 4}", "'num_steps': known are P_mean, P_std"),
    ],
)
def test_options_that_exist_elsewhere_are_not_taken_for_published_ones(
    level: str, words: str
) -> None:
    config = load_config(None, {}, ["preconditioning.name=vdiff", f"loss.noise_level={level}"])
    with pytest.raises(UserError, match=re.escape(words)):
        create_objective(config)
    assert hint("num_steps") is None
