"""Published names: what they stand for exists, and what an unknown name is answered with."""

import importlib
import re

import click
import pytest
from torch.distributed.run import get_args_parser

import losses
from diffusion import GRIDS, SCHEDULES
from diffusion.grids import SPACINGS
from diffusion.outputs import OUTPUTS
from diffusion.preconditioning import PRESETS
from diffusion.steps import VARIANCES
from generation import MODES
from importers.spellings import FLAG_SPELLINGS, SPELLINGS, SYSTEMS, VALUES, explain
from networks import NETWORKS
from samplers import SAMPLERS
from samplers.command_line import FLAGS as SAMPLER_FLAGS
from samplers.settings import WRAPPING
from tests.manual import NAMED, SECTIONS
from tests.test_docs import SCRIPTS
from torch_utils.command import unknown_option
from torch_utils.errors import UserError, edit_distance, nearest, unknown_name
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


# every option of the published programs: whose, of which of ours, the options
PUBLISHED_FLAGS = {
    ("EDM", "train"): """--outdir --data --cond --arch --precond --duration --batch --batch-gpu
        --cbase --cres --lr --ema --dropout --augment --xflip --fp16 --ls --bench --cache --workers
        --desc --nosubdir --tick --snap --dump --seed --transfer --resume --dry-run""",
    ("EDM", "generate"): """--network --outdir --seeds --subdirs --class --batch --steps --sigma_min
        --sigma_max --rho --S_churn --S_min --S_max --S_noise --solver --disc --schedule
        --scaling""",
    ("EDM", "fid"): "--images --ref --num --seed --batch --data --dest",
    ("EDM", "dataset_tool"): "--source --dest --max-images --transform --resolution",
    ("CDM", "train"): """--S_churn --S_min --S_max --S_noise --martingale_lambda --martingale_steps
        --experiment_name --wandb_id""",
    ("2nd-SED", "generate"): "--randn_like",
    ("SA-DPM", "train"): """--config --doc --exp --seed --lamda --num_consecutive_steps
        --resume_training --ni --verbose --comment --num_proc_node --num_process_per_node
        --node_rank --local_rank --master_address""",
    ("SA-DPM", "generate"): """--config --doc --exp -i --image_folder --sample_type --skip_type
        --timesteps --eta --ckpt_id --seeds --fid_log --num_samples --model_ema --ni --verbose
        --comment --num_proc_node --num_process_per_node""",
    ("v-diffusion", "train"): """--config-path --default-config-path --data_root --epochs --lr
        --beta1 --beta2 --weight-decay --batch-size --num-accum --train-timesteps
        --sample-timesteps --logsnr-schedule --logsnr-max --logsnr-min --model-out-type
        --model-var-type --reweight-type --loss-type --intp-frac --w-guide --p-uncond
        --num-workers --train-device --eval-device --image-intv --num-save-images --use-ddim
        --exp-dir --exp-name --ckpt-intv --save-rng-state --seed --resume --from-ckpt --eval
        --eval-intv --ema-decay --distributed --cudnn-benchmark --allow-tf32 --allow-fp16
        --allow-bf16 --use-xformers --max-ckpts-kept --use-cfg --use-ema --allow-rescale
        --x0eps-coef --dataset --root --image-dir --sample-bsz --config-dir --ckpt-dir --ckpt-name
        --chkpt-dir --chkpt-name --chkpt-intv""",
    ("v-diffusion", "generate"): """--config-path --default-config-path --ckpt-path --data-root
        --batch-size --total-size --save-dir --device --use-ema --use-ddim --sample-timesteps
        --uncond --w-guide""",
    ("v-diffusion", "fid"): """--root --dataset --eval-batch-size --eval-total-size --nhood-size
        --row-batch-size --col-batch-size --device --eval-dir --folder-name --precomputed-dir
        --metrics --num-workers --seed""",
    ("DDPM implementation", "train"): "-c --config -e --exp_dir -r --resume --no_interaction",
    ("DDPM implementation", "generate"): """-c --config --seed --weights --load_ema --var_type
        --skip_type --skip_steps --n_samples --save_dir --micro_batch --mode --n_denoise
        --n_progressive --n_interpolate --input_dir --batch_size --sampler --respace_type
        --respace_steps --ddim_eta""",
}


@pytest.mark.parametrize(("system", "script"), PUBLISHED_FLAGS)
def test_every_option_of_a_published_program_is_there_or_answered(system: str, script: str) -> None:
    command: click.Command = importlib.import_module(script).main
    inner = command.commands.values() if isinstance(command, click.Group) else [command]
    for flag in PUBLISHED_FLAGS[system, script].split():
        if flag in FLAGS[script]:
            continue
        for program in inner:
            error = click.NoSuchOption(flag, ctx=click.Context(program))
            message = unknown_option(error)
            assert "see --help" not in message, (script, flag)
            if "did you mean" not in message:
                assert system in message, (script, flag, message)


@pytest.mark.parametrize(
    ("script", "command", "flag", "answer"),
    [
        ("train", None, "--bath", "did you mean --batch?"),
        ("train", None, "--batch_gpu", "did you mean --batch-gpu?"),
        ("train", None, "--lambda", "did you mean --lamda?"),
        ("train", None, "--width", "see --help"),
        ("train", None, "--eval", "here eval of v-diffusion is a separate command"),
        ("train", None, "--out", "did you mean --outdir?"),
        ("generate", None, "--seed", "did you mean --seeds?"),
        ("generate", None, "--n_denoise", "here n_denoise of DDPM implementation is --frames with"),
        ("dataset_tool", "check", "--source", "did you mean --data?"),
        ("dataset_tool", "stats", "--data", "did you mean --source?"),
        ("dataset_tool", "convert", "--out", "did you mean --dest?"),
        ("fid", "calc", "--data", "did you mean --images?"),
        ("fid", "ref", "--images", "did you mean --data?"),
    ],
)
def test_an_unknown_option_is_answered(
    script: str, command: str | None, flag: str, answer: str
) -> None:
    program: click.Command = importlib.import_module(script).main
    if isinstance(program, click.Group) and command is not None:
        program = program.commands[command]
    message = unknown_option(click.NoSuchOption(flag, ctx=click.Context(program)))
    assert message.startswith(f"unknown option {flag}: {answer}")


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


@pytest.mark.parametrize("name", [*SPELLINGS, *FLAG_SPELLINGS])
def test_what_a_spelling_stands_for_exists(name: str) -> None:
    row = SPELLINGS.get(name) or FLAG_SPELLINGS[name]
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
    ours |= {flag.key.split(".")[-1] for flag in SAMPLER_FLAGS}
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


@pytest.mark.parametrize("kind", VALUES)
def test_published_values_are_answered_with_ours(kind: str) -> None:
    known = {
        "preconditioning": PRESETS, "preconditioning.output": OUTPUTS, "network": NETWORKS,
        "weight": losses.WEIGHTS, "loss term": losses.TERMS, "sampler": SAMPLERS,
        "spacing": SPACINGS, "variance": VARIANCES, "mode": MODES,
    }[kind]  # fmt: skip
    for value, ours in VALUES[kind].items():
        assert value not in known
        assert set(re.findall(r"\w+", ours)) & set(known), ours
        message = str(unknown_name(f"{kind} of x:", value, known))
        assert message.endswith(f"here that is {ours}")


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        # read the same
        ("ddpm++", ["ddpm", "ddpmpp"], ["ddpmpp"]),
        ("NCSN++", ["adm", "ncsnpp"], ["ncsnpp"]),
        ("EDM", ["edm", "cdm"], ["edm"]),
        ("batch-size", ["batch", "batch_size"], ["batch_size"]),
        # letters that differ: one of three, and no more
        ("edn", ["edm", "ve"], ["edm"]),
        ("huen", ["heun", "euler"], ["heun"]),
        ("optimiser", ["optimizer"], ["optimizer"]),
        ("eval", ["ema"], []),
        ("width", ["dest", "data"], []),
        ("n_denoise", ["S_noise"], []),
        ("lr", ["ls"], []),
        # as near as each other
        ("ddm", ["ddim", "ddpm", "heun"], ["ddim", "ddpm"]),
        # the beginning of a name
        ("ch", ["chair", "each"], ["chair"]),
        ("c", ["chair"], []),
        ("run.b", ["run.batch"], []),
        ("run.bat", ["run.batch", "run.bench"], ["run.batch"]),
        ("", ["a"], []),
    ],
)
def test_what_was_probably_meant(name: str, known: list[str], found: list[str]) -> None:
    assert nearest(name, known) == found


def test_edits_are_counted() -> None:
    for a, b, distance in [
        ("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ac", 1),
        ("abc", "acb", 1), ("kitten", "sitting", 3), ("ab", "ba", 1), ("abcd", "badc", 2),
    ]:  # fmt: skip
        assert edit_distance(a, b) == edit_distance(b, a) == distance, (a, b)


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
    assert explain("option", "num_steps") is None
