"""generate.py from the command line: files, seeds, classes, several processes, bad input."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from data.sources import open_source
from diffusion import GRIDS
from models.build import build
from models.config import ModelConfig
from models.snapshot import SnapshotInfo, save_snapshot
from samplers.records import NAME
from tests.command import ENVIRONMENT, ROOT, assert_refused, call, run, start, torchrun
from tests.parity.weights import fill_by_rule
from tests.samplers import counted


def write_snapshot(
    path: Path,
    label_dim: int,
    label_kind: str = "class",
    channels: int = 1,
    about: Mapping[str, Any] | None = None,
    **sampling: object,
) -> Path:
    """A small model with weights by rule, images 8x6; `about` are further parts of its info."""
    config = ModelConfig(
        network={"name": "ddpmpp", "model_channels": 16, "channel_mult": [1, 1], "num_blocks": 1},
        img_resolution=(8, 6),
        img_channels=channels,
        label_dim=label_dim,
    )
    denoiser = build(config)
    fill_by_rule(denoiser)
    names = ["ant", "bee", "cow"] if label_dim else None
    stored = {"name": "heun", "steps": 3, **sampling}
    kind = label_kind if label_dim else None
    info = SnapshotInfo(config, stored, names, kind)
    save_snapshot(path, denoiser.state_dict(), replace(info, **(about or {})))
    return path


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "cond.safetensors", 3)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "uncond.safetensors", 0)


def generate(network: Path, outdir: Path, *arguments: str) -> dict[str, np.ndarray]:
    """Relative name -> pixels of what a command generates."""
    done = call("generate.py", f"--network={network}", f"--outdir={outdir}", *arguments)
    assert done.returncode == 0, done.stderr
    return pictures(outdir)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(folder)): np.asarray(PIL.Image.open(path)).astype(int)
        for path in sorted(folder.rglob("*.png"))
    }


def test_a_run_computes_its_noise_levels_once(
    unconditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRIDS, "rho", replace(GRIDS["rho"], target=f"{counted.__name__}:grid"))
    monkeypatch.setattr(counted, "CALLS", [])
    files = (f"--network={unconditional}", f"--outdir={tmp_path}", f"--grid={tmp_path / 'all.png'}")
    done = call("generate.py", *files, "--seeds=0-4", "--batch=2", "--steps=5")
    assert (done.returncode, done.stderr) == (0, "")
    assert counted.CALLS == [5]
    counted.CALLS.clear()
    done = call("generate.py", *files, "--seeds=0", "--sampler=sra1", "--steps=14")
    assert "sra1 makes noise with 14 steps of this grid: take 17 or more" in done.stderr
    assert counted.CALLS == [14, 15, 16, 17]  # the run's own, and the search for what is enough


def test_a_seed_is_an_image_whatever_the_batch_and_the_number_of_processes(
    conditional: Path, tmp_path: Path
) -> None:
    whole = generate(conditional, tmp_path / "a", "--seeds=0-4,1007")
    assert list(whole) == [f"{seed:06d}.png" for seed in (0, 1, 2, 3, 4, 1007)]
    assert whole["000000.png"].shape == (8, 6)
    assert len({image.tobytes() for image in whole.values()}) == 6
    apart = generate(conditional, tmp_path / "b", "--seeds=0-4,1007", "--batch=2", "--subdirs")
    assert list(apart) == [f"000000/{seed:06d}.png" for seed in range(5)] + ["001000/001007.png"]
    for a, b in zip(whole.values(), apart.values(), strict=True):
        assert np.abs(a - b).max() <= 1
    done = torchrun(
        *(2, "generate.py", f"--network={conditional}", f"--outdir={tmp_path / 'c'}"),
        *("--seeds=0-4,1007", f"--grid={tmp_path / 'grid.png'}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 images in") == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("classes: ")]
    assert sum(int(word.split()[1]) for word in line.removeprefix("classes: ").split(", ")) == 6
    two = pictures(tmp_path / "c")
    assert list(two) == list(whole)
    for a, b in zip(whole.values(), two.values(), strict=True):
        assert np.abs(a - b).max() <= 1


def cells(grid: Path, rows: int, columns: int) -> np.ndarray:
    """The images 8x6 of a gray grid [rows, columns, 8, 6], whose names are on top and at the left.

    They are enlarged until the shorter side has 64 pixels.
    """
    with PIL.Image.open(grid) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    own = pixels[-90 * rows :, -68 * columns :].reshape(rows, 90, columns, 68).swapaxes(1, 2)
    return own[:, :, :88:11, :66:11]


def test_each_class_has_a_folder_and_a_row(conditional: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    images = generate(conditional, tmp_path / "a", "--seeds=5-6", "--class=each", f"--grid={grid}")
    names = ("ant", "bee", "cow")
    assert list(images) == [f"{name}/{s:06d}.png" for name in names for s in (5, 6)]
    assert open_source(tmp_path / "a").label_names == list(names)
    np.testing.assert_array_equal(cells(grid, 3, 2).reshape(6, 8, 6), list(images.values()))
    with PIL.Image.open(grid) as picture:
        assert 12 < picture.height - (3 * 90 + 2) < 30  # seeds above the columns
        margin = picture.width - (2 * 68 + 2)
        assert 8 + 3 * 4 < margin < 8 + 3 * 16  # three letters of a class
        assert picture.text["seeds"] == "5-6"
        assert picture.text["snapshot"] == "cond.safetensors"
        assert "name: heun, steps: 3" in picture.text["sampler"]
    one = generate(conditional, tmp_path / "b", "--seeds=5-6", "--class=1", f"--grid={grid}")
    np.testing.assert_array_equal(cells(grid, 1, 2)[0], list(one.values()))
    with PIL.Image.open(grid) as picture:
        assert 16 < picture.height - (90 + 2) < 40  # the class is the title
        assert picture.width == 2 * 68 + 2
    for seed in (5, 6):
        np.testing.assert_array_equal(images[f"bee/{seed:06d}.png"], one[f"{seed:06d}.png"])


@pytest.mark.parametrize("channels", [2, 4])
def test_a_grid_shows_all_channels_side_by_side(channels: int, tmp_path: Path) -> None:
    network = write_snapshot(tmp_path / "network.safetensors", 3, channels=channels)
    outdir, grid = tmp_path / "images.npz", tmp_path / "grid.png"
    done = call(
        *("generate.py", f"--network={network}", f"--outdir={outdir}", f"--grid={grid}"),
        *("--seeds=5-6", "--class=each"),
    )
    assert done.returncode == 0, done.stderr
    images = np.load(outdir)["arr_0"].transpose(0, 3, 1, 2)
    with PIL.Image.open(grid) as picture:
        pixels = np.asarray(picture.convert("L"))
    pitch = channels * 67 - 1 + 10
    own = pixels[-90 * 3 :, -2 * pitch :].reshape(3, 90, 2, pitch).swapaxes(1, 2)
    panels = own[:, :, :88:11, : channels * 67].reshape(6, 8, channels, 67)[..., :66:11]
    np.testing.assert_array_equal(panels.swapaxes(1, 2), images)


def test_a_grid_says_how_many_images_it_has_no_room_for(
    conditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch_utils.grid_layout.MOST_PIXELS", 3 * 68 * 2 * 92)
    grid = f"--grid={tmp_path / 'grid.png'}"
    done = call(
        "generate.py", f"--network={conditional}", f"--outdir={tmp_path}", grid, "--seeds=0-8"
    )
    assert done.returncode == 0
    assert f"{grid.removeprefix('--').replace('=', ': ')}, 6 of 9 images\n" in done.stdout
    images = [np.asarray(PIL.Image.open(tmp_path / f"{seed:06d}.png")) for seed in range(6)]
    np.testing.assert_array_equal(cells(tmp_path / "grid.png", 2, 3).reshape(6, 8, 6), images)


def test_classes_and_tags_have_names(conditional: Path, tmp_path: Path) -> None:
    named = generate(conditional, tmp_path / "a", "--seeds=5", "--class=bee")
    number = generate(conditional, tmp_path / "b", "--seeds=5", "--class=1")
    np.testing.assert_array_equal(named["000005.png"], number["000005.png"])

    tagged = write_snapshot(tmp_path / "tags.safetensors", 3, "multi_hot")
    found = {
        tags: generate(tagged, tmp_path / f"t{i}", "--seeds=5", *tags.split())["000005.png"]
        for i, tags in enumerate(["--tags=bee", "--tags=bee,cow", "--tags=cow,bee", ""])
    }
    np.testing.assert_array_equal(found["--tags=bee"], named["000005.png"])
    np.testing.assert_array_equal(found["--tags=bee,cow"], found["--tags=cow,bee"])
    assert len({image.tobytes() for image in found.values()}) == 3
    options = [f"--network={tagged}", f"--outdir={tmp_path / 'x'}"]
    assert_refused(call("generate.py", *options, "--tags=bea"), "bea", "bee")
    assert_refused(call("generate.py", *options, "--class=1"), "use --tags")


def test_options_beat_the_snapshots_settings(conditional: Path, tmp_path: Path) -> None:
    default = generate(conditional, tmp_path / "a", "--seeds=3")
    same = generate(conditional, tmp_path / "b", "--seeds=3", "--steps=3", "--rho=7")
    for index, option in enumerate(
        ["--steps=4", "--rho=3", "--sigma_max=20", "--sigma_min=0.1", "--S_churn=2", "--class=2"]
    ):
        other = generate(conditional, tmp_path / str(index), "--seeds=3", option)
        assert not np.array_equal(other["000003.png"], default["000003.png"]), option
    np.testing.assert_array_equal(default["000003.png"], same["000003.png"])
    churn = ["--S_churn=2", "--S_min=1e4"]  # a window above every level: nothing is added
    still = generate(conditional, tmp_path / "c", "--seeds=3", *churn)
    np.testing.assert_array_equal(still["000003.png"], default["000003.png"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps=0"], ["steps", "at least 1"]),
        (["--seeds="], ["--seeds"]),
        (["--seeds=5-3"], ["5-3", "empty"]),
        (["--seeds=0-1000000000000"], ["0-1000000000000", "more than 10,000,000"]),
        ([f"--seeds={'9' * 5000}"], ["is not a list of integers"]),
        (["--seeds=a"], ["'a'"]),
        (["--seeds=1-3,2"], ["seed 2 more than once"]),
        (["--class=3"], ["class 3", "0 to 2"]),
        (["--class=bea"], ["bea", "bee"]),
        (["--tags=bee"], ["no tags"]),
        (["--tags=bee", "--class=1"], ["exclude each other"]),
        (["--sigma_min=5", "--sigma_max=2"], ["sigma_min=5", "sigma_max=2"]),
        (["--rho=0"], ["rho"]),
        (["--stps=5"], ["unknown option --stps", "--steps"]),
        (["--batch=0"], ["--batch"]),
        (["--rng-device=cuda"], ["cuda"]),
        (["--sampler=huen"], ["huen", "heun"]),
        (["--sampler=euler", "--S_churn=2"], ["S_churn", "euler"]),
        (["--sampler-option", "stpes=2"], ["stpes", "steps"]),
        (["--guidance=two"], ["--guidance=two", "not a number"]),
        (["--guidance=2", "--guidance-interval=5,1"], ["interval", "the lower one first"]),
        (["--guidance-network=absent", "--guidance=2"], ["no snapshot at absent"]),
        (["--randn_like=ddb", "--sampler=heun"], ["ddb", "ito_taylor"]),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: list[str], conditional: Path, tmp_path: Path
) -> None:
    import torch

    if "--rng-device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = call("generate.py", f"--network={conditional}", f"--outdir={tmp_path / 'o'}", *arguments)
    assert_refused(done, *words)
    assert not (tmp_path / "o").exists()


def test_what_cannot_be_written_is_found_out_before_the_work(
    conditional: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    network, good = f"--network={conditional}", f"--outdir={tmp_path / 'o'}"
    bad = tmp_path / "file" / "o"
    assert_refused(run("generate.py", network, f"--outdir={bad}"), f"cannot write {bad}")
    done = call("generate.py", network, good, f"--grid={bad}/grid.png")
    assert_refused(done, f"cannot write {bad}")
    assert_refused(call("generate.py", network, good, "--grid=grid.gif"), "grid.gif", ".png")
    two = write_snapshot(tmp_path / "two.safetensors", 0, channels=2)
    assert_refused(call("generate.py", f"--network={two}", good), "1 or 3 channels", "2")
    assert not list((tmp_path / "o").iterdir())


def test_an_unconditional_model_has_no_classes(unconditional: Path, tmp_path: Path) -> None:
    options = [f"--network={unconditional}", f"--outdir={tmp_path / 'o'}"]
    assert_refused(call("generate.py", *options, "--class=0"), "unconditional")
    assert_refused(call("generate.py", *options, "--class=each"), "unconditional")
    assert_refused(call("generate.py", *options, "--guidance=2"), "guidance 2", "unconditional")
    assert not (tmp_path / "o").exists()


def test_guidance_from_the_command_line_and_from_the_snapshot(
    conditional: Path, unconditional: Path, tmp_path: Path
) -> None:
    """Scale 1 makes the file of no guidance; the null label and another guide make others."""
    seeds = ("--seeds=3", "--class=1")
    stored = write_snapshot(tmp_path / "guided.safetensors", 3, guidance={"w": 1}, clip=True)
    runs = {
        "plain": (conditional, []),
        "zero": (conditional, ["--guidance=0"]),
        "two": (conditional, ["--guidance=w=1", "--clip"]),
        "stored": (stored, []),
        "undone": (stored, ["--guidance=1", "--no-clip"]),
        "guide": (conditional, ["--guidance=2", f"--guidance-network={unconditional}"]),
        "itself": (conditional, ["--guidance=2", f"--guidance-network={conditional}"]),
    }
    found = {
        name: generate(network, tmp_path / name, *seeds, *arguments)["000003.png"].tobytes()
        for name, (network, arguments) in runs.items()
    }
    assert found["plain"] == found["undone"] == found["itself"]
    assert found["two"] == found["stored"]
    assert len(set(found.values())) == 4


def test_images_that_are_not_finite_are_an_error_and_the_others_are_written(tmp_path: Path) -> None:
    """In two processes: one label of five makes numbers overflow."""
    examples = {"label_examples": [[0.0, 1.0, 2.0]], "label_dropout": 0.1}
    network = write_snapshot(tmp_path / "vectors.safetensors", 3, "vector", about=examples)
    labels = np.ones((5, 3), dtype=np.float32)
    labels[3] = 3e38
    np.save(tmp_path / "labels.npy", labels)
    out, grid = tmp_path / "out", tmp_path / "grid.png"
    done = torchrun(
        *(2, "generate.py", f"--network={network}", f"--outdir={out}", "--seeds=5-9"),
        *(f"--labels={tmp_path / 'labels.npy'}", f"--grid={grid}"),
    )
    assert done.returncode == 1, done.stderr
    assert list(pictures(out)) == [f"{seed:06d}.png" for seed in (5, 6, 7, 9)]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: 1 of 5 images are not finite, of seed 8: nothing was written")
    assert "4 images in" in done.stdout
    with PIL.Image.open(grid) as picture:
        assert np.asarray(picture)[-40:, 4:36].min() == 255  # the first of the second row
    drawn = call("generate.py", f"--network={network}", f"--outdir={out}", "--seeds=5-6")
    assert drawn.returncode == 0, drawn.stderr
    assert "labels: drawn from 1 of the training set\n" in drawn.stdout
    assert "holds other PNGs, 2 of them" in drawn.stderr


def test_labels_that_are_not_used_are_not_counted(tmp_path: Path) -> None:
    about = {"label_dropout": 0.0}
    network = write_snapshot(tmp_path / "cond.safetensors", 3, about=about, steps=6)
    common = ("generate.py", f"--network={network}", "--seeds=3")
    done = call(*common, f"--outdir={tmp_path / 'a'}", "--guidance=0", "--class=bee")
    assert done.returncode == 0, done.stderr
    assert "classes" not in done.stdout
    without, idle = done.stderr.splitlines()
    assert without.startswith("warning: guidance 0 needs a model that knows the null label; this ")
    assert idle == "warning: --class has no effect: at guidance 0 labels are not used"
    plain = call(*common, f"--outdir={tmp_path / 'b'}", "--class=bee", "--sampler=sra1")
    assert "classes: bee 1\n" in plain.stdout
    (line,) = plain.stderr.splitlines()
    assert line.startswith("warning: sampler sra1 makes noise with 6 steps of this grid: take 1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_signal_ends_generating_with_whole_images(conditional: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("generate.py", f"--network={conditional}", f"--outdir={out}", "--seeds=0-99999")
    while process.poll() is None and len(list(out.glob("*.png"))) < 5:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "stopped"
    assert [name for name in os.listdir(out) if name.startswith(".")] == [NAME]
    assert all(image.shape == (8, 6) for image in pictures(out).values())


def test_samplers_from_the_command_line(conditional: Path, tmp_path: Path) -> None:
    """Another sampler drops the snapshot's own options; what was changed or is idle is said."""
    stored = write_snapshot(tmp_path / "churned.safetensors", 3, S_churn=2.0, S_max=50.0)
    done = call(
        *("generate.py", f"--network={stored}", f"--outdir={tmp_path / 'a'}", "--seeds=3"),
        *("--sampler=ddim", "--eta=0.5", "--spacing=trailing", "--solver-dtype=float32"),
        *("--guidance-interval=1,2",),
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warnings == ["warning: --guidance-interval has no effect: there is no guidance"]
    done = run(
        *("generate.py", f"--network={stored}", f"--outdir={tmp_path / 'b'}", "--seeds=3"),
        *("--scaling=vp", "--disc=iddpm", "--sampler-option", "alpha=0.5", "--S_max=20"),
        *("--sampler-option", "M=100"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("S_max=20: the highest noise level that gets fresh noise")
    heun = generate(stored, tmp_path / "c", "--seeds=3")["000003.png"]
    others = [pictures(tmp_path / name)["000003.png"] for name in "ab"]
    assert not any(np.array_equal(heun, other) for other in others)


def test_half_precision_from_the_command_line_is_recorded_and_not_mixed(
    conditional: Path, tmp_path: Path
) -> None:
    out, grid = tmp_path / "half", tmp_path / "grid.png"
    words = ("generate.py", f"--network={conditional}", f"--outdir={out}", "--seeds=0-3")
    done = run(*words, "--precision=bf16", f"--grid={grid}")
    assert done.returncode == 0, done.stderr
    with PIL.Image.open(grid) as picture:
        assert "precision: bf16, solver_dtype: float32" in picture.text["sampler"]
    whole, half = generate(conditional, tmp_path / "whole", "--seeds=0-3"), pictures(out)
    difference = np.stack([half[name].astype(float) - whole[name] for name in whole])
    assert 0 < np.abs(difference).mean() < 3
    refused = call(*words, "--resume")
    assert_refused(refused, "precision was bf16, now it is fp32")
    assert call(*words, "--resume", "--precision=bf16").returncode == 0


def test_what_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_text("x")
    for network, word in [(other, "not a snapshot"), ("absent", "no snapshot"), (tmp_path, "no ")]:
        done = call("generate.py", f"--network={network}", f"--outdir={tmp_path / 'o'}")
        assert_refused(done, word)


def test_an_image_needs_no_compiler_and_nothing_of_scoring_or_training(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path / "net.safetensors", 0)
    code = "import sys, generate\ntry:\n    generate.main()\nfinally:\n    print(*sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code, f"--network={snapshot}", f"--outdir={tmp_path}", "--seeds=0"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    heavy = {"torch._dynamo", "torch._inductor", "scipy", "sklearn", "torchvision", "matplotlib"}
    assert not loaded & (heavy | {"tensorboard", "jinja2", "training", "scoring", "metrics"})
