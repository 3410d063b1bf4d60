"""`import driftless`: loads, samples and trains, and leaves the process as it was."""

import math
import os
import random
import re
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import yaml

import driftless
import train
from samplers.generate import to_uint8
from tests import command
from tests.command import call
from tests.test_generate_cli import write_snapshot
from torch_utils.precision import fast_precision

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:sampler heun makes noise with")


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run some lines in another folder, from where Driftless can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    return done.stderr.splitlines()[-1]


def test_the_import_is_light() -> None:
    done = python("import driftless, sys; assert 'torch' not in sys.modules", ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["data/__init__.py", "models.py"])
def test_a_foreign_package_of_a_name_of_ours_is_named(name: str, tmp_path: Path) -> None:
    foreign = tmp_path / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.touch()
    package = name.split("/")[0].removesuffix(".py")
    line = last_line(python("import driftless", tmp_path))
    assert line == (
        f"ImportError: {foreign} hides the package {package} of Driftless, in {ROOT}: "
        "rename it, or start Python in another folder"
    )


def test_a_foreign_package_that_was_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "__init__.py").touch()
    code = "import sys, metrics; sys.path.pop(0); import driftless"
    line = last_line(python(code, tmp_path))
    assert f"{tmp_path}/metrics/__init__.py hides the package metrics of Driftless" in line
    assert "in a process that does not import it" in line
    code = "import sys; sys.modules['losses'] = type(sys)('losses'); import driftless"
    assert "a module without a file hides the package losses" in last_line(
        python(code, tmp_path / "metrics")
    )


def test_a_folder_of_data_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    done = python("import driftless, data.cache, models.build", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three classes, ant, bee and cow, with images 1x8x6."""
    return write_snapshot(tmp_path_factory.mktemp("door") / "classes.safetensors", 3)


def pixels(folder: Path) -> dict[int, np.ndarray]:
    """Seed -> image [H, W]."""
    return {int(p.stem): np.asarray(PIL.Image.open(p)) for p in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("", {}),
        ("--class=bee --steps=5", {"label": "bee", "steps": 5}),
        (
            "--class=2 --sampler=ddim --eta=0.5 --batch=2",
            {"label": 2, "sampler": "ddim", "eta": 0.5},
        ),
        ("--class=cow --guidance=1.5 --clip", {"label": "cow", "guidance": 1.5, "clip": True}),
        (
            "--S_churn=9 --solver-dtype=float32 --sampler-option rho=5",
            {"S_churn": 9, "solver_dtype": "float32", "rho": 5, "batch": 3},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:guidance .* needs a model")
def test_images_are_those_that_generate_writes(
    words: str, options: dict[str, Any], classes: Path, tmp_path: Path
) -> None:
    done = call(
        *("generate.py", f"--network={classes}", f"--outdir={tmp_path}", "--seeds=0-3,1007"),
        *words.split(),
    )
    assert done.returncode == 0, done.stderr
    written = pixels(tmp_path)
    images = driftless.load(classes).sample([0, 1, 2, 3, 1007], **options)
    assert images.dtype == torch.float32
    assert images.shape == (5, 1, 8, 6)
    assert float(images.abs().max()) <= 1
    found = to_uint8(images.double()).numpy()[:, 0]
    assert [picture.tobytes() for picture in found] == [p.tobytes() for p in written.values()]


def test_batches_come_when_they_are_asked_for_and_are_the_same_images(classes: Path) -> None:
    model = driftless.load(classes)
    calls: list[int] = []
    model.denoiser.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    batches = model.batches(range(50_000), batch=4, sampler="euler", steps=2)
    assert calls == []
    first, second = next(batches), next(batches)
    assert calls == [4] * 4
    whole = model.sample(range(8), batch=8, sampler="euler", steps=2)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    assert model.sample([]).shape == (0, 1, 8, 6)


def test_a_label_is_said_in_any_way(classes: Path) -> None:
    model = driftless.load(classes)
    expected = model.sample([5, 6], label=["cow", "ant"], steps=2)
    hots = torch.tensor([[0.0, 0, 1], [1, 0, 0]])
    for label in (
        [2, 0],
        np.array([2, 0]),
        torch.tensor([2, 0]),
        hots,
        hots.numpy(),
        hots.tolist(),
    ):
        assert torch.equal(model.sample([5, 6], label=label, steps=2), expected)
    one = model.sample([6], label=0, steps=2)
    torch.testing.assert_close(one[0], expected[1])
    repeated = model.sample([7, 7], label=[0, 1], steps=2)
    assert not torch.equal(repeated[0], repeated[1])


def test_tags_and_vectors_are_labels(tmp_path: Path) -> None:
    tags = driftless.load(write_snapshot(tmp_path / "tags.safetensors", 3, "multi_hot"))
    some = tags.sample([1], label="ant,cow", steps=2)
    for label in (["ant", "cow"], [1, 0, 1], np.array([True, False, True])):
        assert torch.equal(tags.sample([1], label=label, steps=2), some)
    assert torch.equal(tags.sample([1], label="", steps=2), tags.sample([1], label=[], steps=2))
    examples = {"label_examples": [[0.5, -1.0, 2.0]]}
    path = write_snapshot(tmp_path / "vectors.safetensors", 3, "vector", about=examples)
    vectors = driftless.load(path)
    drawn = vectors.sample([1], steps=2)
    assert torch.equal(vectors.sample([1], label=[0.5, -1, 2], steps=2), drawn)
    assert torch.equal(vectors.sample([1], label=[[0.5, -1, 2]], steps=2), drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": 3}, "class 3 is out of range: the model has 0 to 2"),
        ({"label": "cwo"}, "unknown class 'cwo': did you mean 'cow'"),
        ({"label": "each"}, "unknown class 'each': known are ant, bee, cow$"),
        ({"label": [1, 2]}, "label names 2 classes for 3 images: give one, or 3"),
        ({"label": [0.5, 1]}, r"has shape \(2,\): for 3 images give 3 numbers, or \(3, 3\)"),
        ({"label": [0.5, 1, math.nan]}, "not finite"),
        ({"label": {}}, "is neither a class nor numbers"),
        ({"stpes": 3}, "unknown option of sampler heun: 'stpes': did you mean 'steps'"),
        ({"sampler": "ddimm"}, "unknown sampler 'ddimm': did you mean 'ddim'"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch is 0: it must be 1 or more"),
        ({"batch": 2.5}, "batch is 2.5: .* a whole number"),
        ({"guide": "runs/other"}, "guide is 'runs/other': it must be a model"),
        ({"sampler": "ddim", "name": "heun"}, "sampler and name mean the same"),
    ],
)
def test_wrong_options_are_refused_at_the_call(
    options: dict[str, Any], message: str, classes: Path
) -> None:
    model = driftless.load(classes)
    with pytest.raises(driftless.UserError, match=message):
        model.batches(range(3), **options)


@pytest.mark.parametrize("seeds", [5, "0-3", [1.5], None])
def test_seeds_are_whole_numbers(seeds: Any, classes: Path) -> None:
    with pytest.raises(driftless.UserError, match=r"seeds is .* a sequence of whole numbers"):
        driftless.load(classes).sample(seeds)


def test_what_cannot_be_loaded_is_answered_with_what_can(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    for path, message in [
        (tmp_path / "absent", "no snapshot at .*: give a run directory, a network-snap"),
        (tmp_path / "model.bin", "is no checkpoint of a known kind: read are snapshots of"),
        (tmp_path, "no network-snapshot-"),
    ]:
        with pytest.raises(driftless.UserError, match=message):
            driftless.load(path)
    path = write_snapshot(tmp_path / "classes.safetensors", 3)
    with pytest.raises(driftless.UserError, match="device is 'gpu': give auto, cpu, cuda, or one"):
        driftless.load(path, device="gpu")


@pytest.mark.filterwarnings("ignore:guidance 0 needs a model")
def test_cautions_are_warnings_and_lost_images_failures(classes: Path, tmp_path: Path) -> None:
    model = driftless.load(classes)
    with pytest.warns(UserWarning, match="needs a model that knows the null label") as caught:
        model.sample([1], guidance=2, steps=2)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="label has no effect: at guidance 0"):
        model.sample([1], guidance=0, label=1, steps=4)
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(math.nan)
    with pytest.raises(driftless.Failure, match="images of seeds 1, 9 are not finite"):
        model.sample([1, 9], steps=2)


@pytest.mark.filterwarnings("ignore:guidance 0 needs a model")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"S_noise": 1.003}, "S_noise has no effect: S_churn is 0"),
        (
            {"guidance": {"scale": 1, "interval": [1, 2]}},
            "guidance.interval has no effect: a guidance scale of 1 is no guidance",
        ),
        ({"guidance": {"batch": "split"}}, "guidance.batch has no effect: there is no guidance"),
        (
            {"guidance": {"scale": 0, "clip": "both"}, "clip": True},
            "clip has no effect: the guidance has clip both",
        ),
    ],
)
def test_a_setting_without_effect_draws_a_warning(
    options: dict[str, Any], line: str, classes: Path
) -> None:
    model = driftless.load(classes)
    with pytest.warns(UserWarning, match=f"^{re.escape(line)}$"):
        model.batches([1], steps=4, **options)


def test_a_setting_that_is_none_is_not_given(classes: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driftless.load(classes).batches([1], steps=4, S_noise=None, guidance={"interval": None})


def test_a_guide_without_effect_draws_a_warning(classes: Path) -> None:
    model = driftless.load(classes)
    with pytest.warns(UserWarning, match="^guide has no effect: a guidance scale of 1 is no"):
        model.batches([1], steps=4, guidance=1, guide=model)


def test_denoising_has_gradients_dtypes_and_labels(classes: Path) -> None:
    model = driftless.load(classes)
    noisy = torch.randn(2, 1, 8, 6, dtype=torch.float64, requires_grad=True)
    clean = model.denoise(noisy, sigma=0.5)
    assert clean.dtype == torch.float64
    clean.sum().backward()
    assert noisy.grad is not None
    assert bool(noisy.grad.abs().sum() > 0)
    hots = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    expected = model.denoiser(noisy, torch.tensor([0.5, 2.0]), hots)
    assert torch.equal(model.denoise(noisy, torch.tensor([0.5, 2.0]), ["bee", "cow"]), expected)
    assert not torch.equal(model.denoise(noisy, 0.5, "bee"), clean)
    wrong: list[tuple[Any, Any]] = [
        *((x, 0.5) for x in (noisy[0], noisy[:0], noisy.to(torch.int64), noisy.tolist())),
        *((noisy, sigma) for sigma in (0, math.nan, "1", [0.5, 1.0], torch.ones(3))),
    ]
    for x, sigma in wrong:
        with pytest.raises(driftless.UserError):
            model.denoise(x, sigma)


def test_a_model_says_what_it_is(classes: Path) -> None:
    lines = str(driftless.load(classes)).splitlines()
    assert lines[0] == str(classes)
    about = dict(line.split(maxsplit=1) for line in lines[1:])
    assert re.fullmatch(r"ddpmpp, [\d,]+ parameters, on (cpu|cuda:0)", about["network"])
    assert about["images"] == "1x8x6"
    assert about["labels"] == "3 classes: ant, bee, cow"
    assert about["sampler"] == "name heun, steps 3"
    assert {"denoiser", "trained"} < set(about)


RANDOM = (random.getstate, np.random.get_state, torch.get_rng_state)


def process_state() -> list[object]:
    """All that a library call could leave changed, as text."""
    backends = torch.backends
    return [
        *(str(state()) for state in RANDOM),
        torch.get_rng_state().sum().item(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        *(backends.cudnn.benchmark, backends.cudnn.deterministic, backends.cudnn.allow_tf32),
        backends.cuda.matmul.allow_tf32,
        *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        *(sys.stdout, sys.stderr, os.getcwd(), warnings.filters[:], dict(os.environ)),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> driftless.Run:
    """Some steps of training on the digits."""
    return driftless.train(TINY, outdir=tmp_path_factory.mktemp("runs"), progress=False)


TINY = {
    "base": "configs/digits-tiny.yaml",
    "network": {"dropout": 0.1},  # which draws from PyTorch's default generator
    "run": {"duration": "4it", "tick": "2it"},
}


def test_nothing_of_the_process_changes(classes: Path, run: driftless.Run, tmp_path: Path) -> None:
    next(driftless.load(classes).batches(range(2), steps=4))  # libraries add filters when imported
    torch.manual_seed(5)
    before = process_state()
    model = driftless.load(classes)
    assert process_state() == before
    next(model.batches(range(2), steps=4, sampler="ddim", eta=1))
    assert process_state() == before
    model.denoise(torch.zeros(1, 1, 8, 6), 0.5, 1)
    assert process_state() == before
    driftless.train(TINY, outdir=tmp_path, progress=False)
    assert process_state() == before
    with pytest.raises(driftless.UserError):
        driftless.train(TINY, "run.batch=-1", outdir=tmp_path)
    assert process_state() == before


def test_training_returns_the_run(run: driftless.Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run.snapshot == run.folder / "network-snapshot-0000000128.safetensors"
    assert [round(row["Progress/kimg"]["mean"] * 1000) for row in run.stats] == [32, 96, 128]
    assert all(math.isfinite(row["Loss/loss"]["mean"]) for row in run.stats)
    images = run.model().sample(range(3), label=7, steps=4, progress=False)
    assert images.shape == (3, 1, 8, 8)
    assert capfd.readouterr() == ("", "")


def test_training_from_python_is_training_from_the_command_line(
    run: driftless.Run, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    base = ROOT / "configs" / "digits-tiny.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "base": str(base)}))
    done = call("train.py", f"--outdir={tmp_path / 'runs'}", f"--config={recipe}")
    assert done.returncode == 0, done.stderr
    (snapshot,) = (tmp_path / "runs").glob("*/network-snapshot-0000000128.safetensors")
    ours, theirs = (driftless.load(path).denoiser.state_dict() for path in (run.folder, snapshot))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_is_resumed_and_its_lines_are_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = driftless.train(TINY, "run.duration=2it", outdir=tmp_path)
    assert "done: 64 images" in capfd.readouterr().out
    again = driftless.train(TINY, "run.duration=2it", outdir=tmp_path, resume="latest")
    assert (again.folder, again.stats) == (first.folder, first.stats)
    assert "already done: 64 images" in capfd.readouterr().out
    with pytest.raises(driftless.UserError, match=r"run.duration: 64img -> 96img"):
        driftless.train({}, "run.duration=3it", resume=first.folder)
    changed = ("run.duration=3it",)
    more = driftless.train({}, *changed, resume=first.folder, allow_config_change=True)
    assert more.snapshot == first.folder / "network-snapshot-0000000096.safetensors"
    assert "from 64 images" in capfd.readouterr().out
    with pytest.raises(driftless.UserError, match="outdir is missing"):
        driftless.train(TINY)
    with pytest.raises(driftless.UserError, match=r"the given config: 'run.durration'"):
        driftless.train({**TINY, "run": {"durration": 3}}, outdir=tmp_path)


def test_all_of_it_works_in_a_thread(tmp_path: Path, run: driftless.Run) -> None:
    def work() -> torch.Tensor:
        own = driftless.train(TINY, outdir=tmp_path, progress=False)
        return own.model().sample(range(3), label=7, steps=4)

    with ThreadPoolExecutor() as pool:
        images = pool.submit(work).result()
    assert torch.equal(images, run.model().sample(range(3), label=7, steps=4))


def test_a_signal_during_training_is_the_callers(tmp_path: Path) -> None:
    """Ctrl-C is an exception at once; the states that were saved go on."""
    script = tmp_path / "interrupted.py"
    script.write_text(
        "import os, signal, sys, threading, time, driftless\n"
        "os.chdir(sys.argv[1])\n"
        "folder = driftless.Path(os.getcwd())\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "def interrupt():\n"
        "    while not list(folder.glob('runs/*/training-state-*')): time.sleep(0.1)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "try:\n"
        "    overrides = 'run.duration=9000it', 'preview=off'\n"
        "    driftless.train('configs/digits-tiny.yaml', *overrides, outdir='runs')\n"
        "except KeyboardInterrupt:\n"
        "    print('caught')\n"
    )
    done = command.run(str(script), tmp_path)
    assert done.stdout.endswith("caught\n"), done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    changed = ("run.duration=40it",)
    more = driftless.train({}, *changed, resume=folder, progress=False, allow_config_change=True)
    assert more.snapshot == folder / "network-snapshot-0000001280.safetensors"


def test_a_command_called_from_python_returns(tmp_path: Path) -> None:
    recipe = f"--config={ROOT / 'configs' / 'digits-tiny.yaml'}"
    words = [recipe, f"--outdir={tmp_path}", "run.duration=1it", "preview=off"]
    assert train.main(words, standalone_mode=False) == 0
    with pytest.raises(driftless.UserError, match="option --lr"):
        train.main([*words, "--lr=-1"], standalone_mode=False)


def test_the_block_in_the_readme_runs(
    run: driftless.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is but for numbers that take long."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for long, short in (
        ("50_000", "70"),
        ('600it"', '2it", "preview=off", "evaluate.num_images=10"'),
        ("steps=50", "steps=9"),
    ):
        assert long in block
        block = block.replace(long, short)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "training").symlink_to(run.folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["images"].shape == names["clean"].shape == (16, 1, 8, 8)
    assert names["batch"].shape == (6, 1, 8, 8)
    printed = capsys.readouterr().out
    assert "labels    10 classes" in printed
    assert printed.count("tensor(") == 2
    assert names["run"].folder == Path(
        f"runs/00000-digits-gpus1-batch128-{fast_precision(torch.device('cpu'))}"
    )
