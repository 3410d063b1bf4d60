"""train.py from the command line: the tiny demo, options that reach the config, bad input."""

import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

from models.snapshot import load_snapshot
from tests.command import assert_refused, call, run
from torch_utils.precision import fast_precision

TINY = "--config=configs/digits-tiny.yaml"
PRECISION = fast_precision(torch.device("cpu"))  # of that recipe, which says auto


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of the tiny recipe."""
    outdir = tmp_path_factory.mktemp("out")
    done = run("train.py", f"--outdir={outdir}", TINY, "--desc=first")
    assert done.returncode == 0, done.stderr
    (folder,) = outdir.iterdir()
    return folder


def test_a_run_directory_holds_what_it_should(trained: Path) -> None:
    assert trained.name == f"00000-digits-tiny-gpus1-batch32-{PRECISION}-first"
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "log.txt", "stats.jsonl"} <= names
    for images in (32, 352, 640):
        assert f"network-snapshot-{images:010d}.safetensors" in names
        assert f"samples-{images:010d}.png" in names
    assert not [name for name in names if ".tmp-" in name]
    assert any(name.startswith("events.out.tfevents.") for name in names)
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["run"]["duration"] == "640img"
    log = (trained / "log.txt").read_text()
    assert re.search(r"tick 4 .*loss \d", log)
    assert "done: 640 images" in log


def test_statistics_are_strict_json_under_edms_names(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "stats.jsonl").read_text().splitlines()]
    assert [line["Progress/tick"]["mean"] for line in lines] == [0, 1, 2, 3, 4]
    for name in (
        *("Loss/loss", "Loss/denoising", "Progress/tick", "Progress/kimg", "Timing/total_sec"),
        *("Timing/sec_per_tick", "Timing/sec_per_kimg", "Timing/maintenance_sec"),
        *("Resources/cpu_mem_gb",),
    ):
        assert set(lines[-1][name]) == {"num", "mean", "std"}, name
    assert lines[-1]["timestamp"] > 1.7e9
    assert lines[1]["Loss/loss"]["num"] == 5 * 32 * 64
    assert lines[-1]["Loss/loss"]["mean"] < lines[0]["Loss/loss"]["mean"]


def test_the_snapshot_is_self_contained_and_the_grid_has_a_row_a_class(trained: Path) -> None:
    denoiser, info = load_snapshot(trained / "network-snapshot-0000000640.safetensors")
    assert denoiser.label_dim == 10
    assert info.label_names == [str(digit) for digit in range(10)]
    assert info.sampling["steps"] == 6
    assert info.images == 640
    with PIL.Image.open(trained / "samples-0000000640.png") as grid:
        assert 0 < grid.height - (10 * 66 + 2) < 66  # a title and the seeds
        assert grid.width > 8 * 66
        assert np.asarray(grid).std() > 20


def test_the_same_command_again_says_that_it_is_done_and_writes_nothing(trained: Path) -> None:
    """The folder may be for reading only."""
    before = {path: path.read_bytes() for path in trained.iterdir()}
    done = run("train.py", f"--outdir={trained.parent}", TINY, "--desc=first", "--resume=latest")
    assert done.returncode == 0, done.stderr
    assert "already done: 640 images" in done.stdout
    assert {path: path.read_bytes() for path in trained.iterdir()} == before


def config_of(*arguments: str) -> dict:
    """The config that a dry run prints."""
    dry = ("--dry-run", "--probe=0")
    done = call("train.py", "--outdir=/nonexistent/dir", *dry, *arguments)
    assert done.returncode == 0, done.stderr
    assert not Path("/nonexistent").exists()
    return yaml.safe_load(done.stdout)


def test_edms_options_reach_the_config_with_edms_units() -> None:
    config = config_of(
        *("--data=assets/digits-8x8.zip", "--cond=1", "--arch=ncsnpp", "--precond=edm"),
        *(
            "--duration=0.5",
            "--batch=64",
            "--batch-gpu=16",
            "--cbase=16",
            "--cres=1,2",
            "--lr=3e-4",
        ),
        *(
            "--ema=0.1",
            "--dropout=0.2",
            "--xflip=1",
            "--precision=bf16",
            "--ls=8",
            "--bench=0",
            "--remat=1",
            "--compile=1",
            "--augment=0.12",
        ),
        *("--tick=2", "--snap=3", "--dump=5", "--seed=7", "--desc=mine", "--device=cpu"),
    )
    given = {"name": "ncsnpp", "model_channels": 16, "channel_mult": [1, 2], "dropout": 0.2}
    assert given.items() <= config["network"].items()
    assert config["data"]["cond"] is True
    assert config["data"]["xflip"] is True
    assert config["augment"] == {"p": 0.12, "set": "edm"}
    assert config["optimizer"]["lr"] == 3e-4
    assert config["ema"]["halflife"] == "100000img"
    run_section = config["run"]
    expected = {
        "duration": "500000img", "batch": 64, "batch_gpu": 16, "seed": 7, "tick": "2000img",
        "snap": "6000img", "dump": "10000img", "desc": "mine", "device": "cpu", "bench": False,
        "precision": "bf16", "loss_scaling": 8.0, "remat": True, "compile": True,
    }  # fmt: skip
    assert {key: run_section[key] for key in expected} == expected


def test_the_command_line_beats_the_recipe_and_overrides_beat_options() -> None:
    config = config_of(TINY, "--batch=64", "--duration=2ep", "run.batch=128", "sampler.steps=3")
    assert config["run"]["batch"] == 128
    assert config["run"]["duration"] == "512img"
    assert config["sampler"]["steps"] == 3
    assert config["network"]["model_channels"] == 16


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--precond=cdm"], ["denoising", "consistency"]),
        (
            ["--precond=cdm", "--martingale_lambda=2", "--martingale_steps=4"],
            ["denoising", {"name": "consistency", "lambda": 2.0, "num_steps": 4}],
        ),
        (
            [
                "--precond=ddpm",
                "loss.noise_level=discrete",
                "--lamda=0.2",
                "--num_consecutive_steps=3",
            ],
            ["denoising", {"name": "sequence_aware", "lambda": 0.2, "K": 3}],
        ),
        (["--precond=ddpm", "--lamda=0", "--num_consecutive_steps=0"], ["denoising"]),
        (
            ["--lamda=0.3", "loss.terms=[denoising,{name: sequence_aware,K: 4,grid: rho}]"],
            ["denoising", {"name": "sequence_aware", "lambda": 0.3, "K": 4, "grid": "rho"}],
        ),
    ],
)
def test_published_options_change_the_terms(arguments: list[str], expected: list) -> None:
    small = ("network.channel_mult=[1]", "network.attn_resolutions=[]", "--batch=2")
    config = config_of(TINY, *small, *arguments)
    for shown, given in zip(config["loss"]["terms"], expected, strict=True):
        wanted = {"name": given} if isinstance(given, str) else given
        assert wanted.items() <= shown.items()
    assert config["preconditioning"]["name"] in ("edm", "ddpm")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no data set", "--data"]),
        (["--data=absent.zip"], ["absent.zip"]),
        (["--data=Makefile"], ["Makefile"]),
        ([TINY, "--bath=3"], ["unknown option --bath", "--batch"]),
        ([TINY, "run.bath=3"], ["run.bath", "run.batch"]),
        ([TINY, "network.model_chanels=3"], ["model_chanels", "model_channels"]),
        ([TINY, "--arch=ddpmp"], ["ddpmp", "ddpmpp"]),
        ([TINY, "--precond=edn"], ["edn", "edm"]),
        ([TINY, "--precond=vdif"], ["vdif", "vdiff"]),
        ([TINY, "--martingale_steps=5"], ["--martingale_steps=5", "--precond=cdm"]),
        ([TINY, "--precond=cdm", "--martingale_steps=1"], ["num_steps is 1", "from 2 to 10000"]),
        ([TINY, "--precond=cdm", "--martingale_lambda=-1"], ["lambda is -1", "at least 0"]),
        ([TINY, "--precond=ddpm", "--num_consecutive_steps=1"], ["K is 1", "from 2 to 10000"]),
        ([TINY, "--lamda=1"], ["sampler's grid"]),
        (
            [TINY, "--precond=ddpm", "loss.noise_level=discrete", "loss.weight=vlb"],
            ["density", "uniform_time"],
        ),
        ([TINY, "--grad-norm=1"], ["--grad-norm", "optimizer.clip_norm"]),
        ([TINY, "optimizer.grad_clip=1"], ["SA-DPM", "optimizer.clip_norm"]),
        ([TINY, "--precond=vp", "preconditioning.sigma_data=1"], ["vp", "sigma_data"]),
        ([TINY, "--batch=many"], ["many"]),
        ([TINY, "--batch=30", "--batch-gpu=12"], ["30", "12", "not divisible"]),
        ([TINY, "--cres=1,1,1,1,1"], ["8"]),
        ([TINY, "sampler.steps=0"], ["steps", "at least 1"]),
        ([TINY, "sampler.name=huen"], ["huen", "heun"]),
        ([TINY, "loss.terms=[denoisin]"], ["denoisin", "denoising"]),
        ([TINY, "--duration=long"], ["duration", "suffixes"]),
        ([TINY, "--cond=0", "run.label_dropout=0.1"], ["label_dropout", "no effect"]),
        ([TINY, "--resume=absent"], ["nothing to resume at absent"]),
        ([TINY, "--resume=tests"], ["is not a run directory"]),
        ([TINY, "--resume=configs", "--transfer=x"], ["exclude each other"]),
        ([TINY, "--transfer=Makefile"], ["no checkpoint of a known kind"]),
        (["--config=absent.yaml"], ["absent.yaml"]),
        ([TINY, "--device=tpu"], ["run.device", "tpu"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    outdir = tmp_path / "out"
    assert_refused(call("train.py", f"--outdir={outdir}", *arguments), *words)
    assert not outdir.exists()


def test_outdir_is_needed(tmp_path: Path) -> None:
    assert_refused(call("train.py", TINY), "--outdir")


def test_labels_that_are_absent_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    for index in range(2):
        PIL.Image.new("L", (8, 8), index).save(folder / f"{index}.png")
    done = call("train.py", f"--outdir={tmp_path}/out", TINY, f"--data={folder}", "data.max_size=2")
    assert_refused(done, "labels")


def test_mixed_sizes_and_damaged_zips_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    PIL.Image.new("L", (8, 8)).save(folder / "a.png")
    PIL.Image.new("L", (8, 6)).save(folder / "b.png")
    options = [f"--outdir={tmp_path}/out", "--batch=2", "--duration=1it"]
    assert_refused(call("train.py", *options, f"--data={folder}"), "b.png")
    (tmp_path / "empty").mkdir()
    assert_refused(call("train.py", *options, f"--data={tmp_path}/empty"), "no image")
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(Path("assets/digits-8x8.zip").read_bytes()[:5000])
    assert_refused(call("train.py", *options, f"--data={damaged}"), "damaged.zip")
