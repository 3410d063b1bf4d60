"""Modes denoise and progressive: which steps are shown, their pixels, and what they cost."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from generation.frames import ESTIMATES, STATES, Frames, chosen_steps
from importers.opening import open_model
from samplers.generate import solve, to_uint8
from samplers.labels import LabelSource
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample, start_of
from tests.command import assert_refused, call, torchrun
from tests.generation.pictures import cells
from tests.test_generate_cli import write_snapshot
from torch_utils.errors import UserError
from torch_utils.grids import is_grid

SHAPE = (1, 8, 6)
STATE = "state x / sqrt(1 + sigma^2) at noise level sigma"
ESTIMATE = "estimate D(x, sigma) of the image at noise level sigma"


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "uncond.safetensors", 0, steps=4)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "cond.safetensors", 3, steps=4)


def run(network: Path, outdir: Path, *arguments: str) -> str:
    """What a command prints."""
    done = call("generate.py", f"--network={network}", f"--outdir={outdir}", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def gray(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return np.asarray(picture.convert("L"))[None]


def euler_by_hand(network: Path, seed: int, sigmas: list[float]) -> list[tuple[torch.Tensor, ...]]:
    """(x, D) at every level; at the last, twice the image."""
    denoiser = open_model(network).denoiser
    latent = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    x = latent[None].double() * sigmas[0]
    found = []
    for sigma, sigma_next in itertools.pairwise(sigmas):
        with torch.inference_mode():
            denoised = denoiser(x, sigma)
        found.append((x, denoised))
        x = x + (sigma_next - sigma) * (x - denoised) / sigma
    return [*found, (x, x)]


def rho(num_steps: int, end: str) -> list[float]:
    """Levels from 80 to 0.002 by the formula, and 0 if they end there."""
    num = num_steps if end == "zero" else num_steps + 1
    ramp = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), num)
    return [*(ramp**7).tolist(), *([0.0] if end == "zero" else [])]


@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize("mode", ["denoise", "progressive"])
def test_frames_are_the_states_and_estimates_at_their_steps(
    mode: str, end: str, unconditional: Path, tmp_path: Path
) -> None:
    sampler = ("--sampler=euler", "--steps=7", f"--end={end}", "--seeds=3,11", "--batch=1")
    run(unconditional, tmp_path / "plain", *sampler)
    run(unconditional, tmp_path / "s", f"--mode={mode}", "--frames=4", *sampler)
    sigmas, steps = rho(7, end), [0, 2, 5, 7]
    title = STATE if mode == "denoise" else ESTIMATE
    for seed in (3, 11):
        columns = [f"{sigmas[step]:.3g}" for step in steps[:-1]] + ["image"]
        path = tmp_path / "s" / f"{seed:06d}.png"
        assert is_grid(path)
        found = cells(path, SHAPE, 4, 4, columns=columns, title=f"seed {seed}: {title}")
        by_hand = euler_by_hand(unconditional, seed, sigmas)
        for frame, step in zip(found[:-1], steps[:-1], strict=True):
            x, denoised = by_hand[step]
            expected = x / (1 + sigmas[step] ** 2) ** 0.5 if mode == "denoise" else denoised
            difference = to_uint8(expected)[0].int() - torch.from_numpy(frame.copy()).int()
            assert difference.abs().max() <= 1, step
        np.testing.assert_array_equal(found[-1], gray(tmp_path / "plain" / f"{seed:06d}.png"))
        assert len({frame.tobytes() for frame in found}) >= 3


@pytest.mark.parametrize(("steps", "frames"), [(n, m) for n in (1, 2, 7, 18) for m in (2, 3, 8)])
def test_strips_have_exactly_as_many_frames_as_asked(
    steps: int, frames: int, unconditional: Path, tmp_path: Path
) -> None:
    network, outdir = f"--network={unconditional}", f"--outdir={tmp_path}"
    arguments = ("--mode=denoise", "--seeds=0", f"--frames={frames}", f"--steps={steps}")
    done = call("generate.py", network, outdir, "--sampler=euler", *arguments)
    if frames > steps + 1:
        assert_refused(done, f"--frames={frames}", f"{frames - 1} steps", f"there are {steps}")
        assert list(tmp_path.iterdir()) == []
        return
    assert done.stdout == f"1 strip of {frames} frames in {tmp_path}\n"
    sigmas = rho(steps, "zero")
    columns = [f"{sigmas[step]:.3g}" for step in chosen_steps(steps, frames, 8)[:-1]] + ["image"]
    path, title = tmp_path / "000000.png", f"seed 0: {STATE}"
    assert len(cells(path, SHAPE, frames, frames, columns=columns, title=title)) == frames


def test_chosen_steps_are_first_last_and_evenly_between() -> None:
    for num_steps in range(1, 60):
        for num in range(2, num_steps + 2):
            steps = chosen_steps(num_steps, num, 8)
            assert len(steps) == num
            assert (steps[0], steps[-1]) == (0, num_steps)
            gaps = [b - a for a, b in itertools.pairwise(steps)]
            assert min(gaps) >= 1
            assert max(gaps) - min(gaps) <= 1
        with pytest.raises(UserError, match=f"takes {num_steps + 1} steps, there are {num_steps}"):
            chosen_steps(num_steps, num_steps + 2, 8)
        assert len(chosen_steps(num_steps, None, 8)) == min(8, num_steps + 1)


@pytest.mark.parametrize("name", ["restart", "ddpm", "ablation", "sra1", "unipc"])
@pytest.mark.parametrize("mode", ["denoise", "progressive"])
def test_every_kind_of_solver_has_a_frame_for_each_step(
    name: str, mode: str, unconditional: Path, tmp_path: Path
) -> None:
    """Restart takes steps again, ablation scales its state, UniPC and DDPM have other grids."""
    arguments = ("--seeds=6", f"--sampler={name}", "--steps=18", "--frames=19")
    run(unconditional, tmp_path, f"--mode={mode}", *arguments)
    denoiser = open_model(unconditional).denoiser
    sampling = sampling_of(generation_settings({"name": name, "steps": 18}), denoiser)
    sampling = sampling.at_precision(in_place=True)
    start = start_of(sampling, [Sample(6)], source=LabelSource(0))
    first: dict[int, torch.Tensor] = {}

    def keep(i: int, sigma: float, x: torch.Tensor, denoised: torch.Tensor) -> None:
        shown = x / (1 + sigma**2) ** 0.5 if mode == "denoise" else denoised
        first.setdefault(i, to_uint8(shown)[0])

    first[18] = to_uint8(solve(sampling, start, callback=keep))[0]
    columns = [f"{sigma:.3g}" for sigma in sampling.sigmas[:-1]] + ["image"]
    title = f"seed 6: {STATE if mode == 'denoise' else ESTIMATE}"
    found = cells(tmp_path / "000006.png", SHAPE, 19, 19, columns=columns, title=title)
    for step, frame in enumerate(found):
        np.testing.assert_array_equal(frame, first[step].numpy(), err_msg=str(step))


def test_a_step_that_is_taken_again_is_shown_the_first_time() -> None:
    frames = Frames(STATES, [0, 1, 2], 2)
    x = torch.zeros(2, 1, 1, 1)
    for i, value in [(0, 0.0), (1, 0.5), (1, -0.5), (1, 0.9)]:
        frames(i, 0.0, x + value, x)
    found = frames.take(x + 1).flatten().tolist()
    assert found == [128, 191, 255] * 2


@pytest.mark.parametrize("batches", [1, 5])
def test_memory_does_not_grow_with_steps_or_batches(batches: int) -> None:
    shape = (4, 3, 32, 32)

    def peak(num_steps: int) -> int:
        steps = chosen_steps(num_steps, 8, 8)
        frames = Frames(ESTIMATES, steps, num_steps)
        seen: list[int] = []
        for _ in range(batches):
            x = torch.zeros(shape)
            for i in range(num_steps):
                frames(i, 1.0, x, torch.zeros(shape) + i)
                kept = frames._kept.values()
                assert all(tensor.dtype == torch.uint8 for tensor in kept)
                seen.append(sum(tensor.untyped_storage().nbytes() for tensor in kept))
            assert frames.take(x).shape == (4, 8, 3, 32, 32)
        return max(seen)

    assert peak(10) == peak(500) == 7 * 4 * 3 * 32 * 32


def test_python_objects_do_not_grow_with_steps(unconditional: Path, tmp_path: Path) -> None:
    def peak(num_steps: int) -> int:
        arguments = ("--mode=progressive", "--seeds=0-1", "--sampler=euler", f"--steps={num_steps}")
        run(unconditional, tmp_path, *arguments)  # what is cached is there afterwards
        tracemalloc.start()
        try:
            run(unconditional, tmp_path, *arguments)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(200) < peak(10) + 200 * 1000


def test_all_strips_stand_in_one_grid(conditional: Path, tmp_path: Path) -> None:
    grid = tmp_path / "all.png"
    arguments = ("--class=each", "--seeds=4,9", "--steps=4", f"--grid={grid}", "--frames=3")
    printed = run(conditional, tmp_path / "s", "--mode=progressive", *arguments)
    assert printed == f"grid: {grid}\n6 strips of 3 frames in {tmp_path / 's'}\n"
    assert is_grid(grid)
    rows = [f"{name}, seed {seed}" for name in ("ant", "bee", "cow") for seed in (4, 9)]
    columns = ["80", "0.47", "image"]
    found = cells(grid, SHAPE, 18, 3, rows=rows, columns=columns, title=ESTIMATE)
    for row, name in enumerate(rows):
        folder, _, seed = name.partition(", seed ")
        strip = tmp_path / "s" / folder / f"{int(seed):06d}.png"
        alone = cells(strip, SHAPE, 3, 3, columns=columns, title=f"{name}: {ESTIMATE}")
        np.testing.assert_array_equal(found[3 * row : 3 * row + 3], alone)


def test_two_processes_make_the_same_strips_and_grid(conditional: Path, tmp_path: Path) -> None:
    arguments = ("--mode=denoise", "--seeds=0-4", "--batch=2", "--frames=3")
    movie = tmp_path / "one.webp"
    run(conditional, tmp_path / "one", *arguments, f"--grid={tmp_path / 'one.png'}",
        f"--animate={movie}")  # fmt: skip
    done = torchrun(
        *(2, "generate.py", f"--network={conditional}", f"--outdir={tmp_path / 'two'}"),
        *(*arguments, f"--grid={tmp_path / 'two.png'}", f"--animate={tmp_path / 'two.webp'}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("5 strips of 3 frames in") == 1
    names = [f"one/{seed:06d}.png" for seed in range(5)]
    for name in [*names, "one.png", "one.webp"]:
        a, b = (gray(tmp_path / part).astype(int) for part in (name, name.replace("one", "two")))
        assert np.abs(a - b).max() <= 1, name


def test_images_of_any_number_of_channels_have_strips(tmp_path: Path) -> None:
    two = write_snapshot(tmp_path / "two.safetensors", 0, channels=2, steps=4)
    run(two, tmp_path / "s", "--mode=denoise", "--seeds=0", "--frames=2")
    with PIL.Image.open(tmp_path / "s" / "000000.png") as picture:
        assert picture.width > 4 * 6 * 11


def test_strips_do_not_take_the_place_of_images(unconditional: Path, tmp_path: Path) -> None:
    run(unconditional, tmp_path, "--seeds=0-1")
    network, outdir = f"--network={unconditional}", f"--outdir={tmp_path}"
    done = call("generate.py", network, outdir, "--mode=denoise", "--seeds=1-2")
    assert_refused(done, "1 of them", "000001.png", "another --outdir")
    run(unconditional, tmp_path, "--mode=denoise", "--seeds=2-3", "--frames=2")
    run(unconditional, tmp_path, "--mode=progressive", "--seeds=2-3", "--frames=2")  # over strips


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--frames=1"], ["--frames"]),
        (["--frames=6"], ["--frames=6", "5 steps", "there are 4"]),
        (["--grid=g.gif"], ["--grid=g.gif", ".png"]),
        (["--animate=a.gif"], ["--animate=a.gif", ".webp"]),
        (["--animate=a.webp", "--fps=0"], ["--fps"]),
        (["--outdir=x.zip"], ["x.zip", "give a folder"]),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: list[str], unconditional: Path, tmp_path: Path
) -> None:
    network, outdir = f"--network={unconditional}", f"--outdir={tmp_path / 'o'}"
    done = call("generate.py", network, outdir, "--mode=denoise", "--seeds=0", *arguments)
    assert_refused(done, *words)
    assert not (tmp_path / "o").exists()


def test_images_that_are_not_finite_have_no_strip(tmp_path: Path) -> None:
    network = write_snapshot(tmp_path / "vectors.safetensors", 3, "vector", steps=4)
    labels = np.ones((3, 3), dtype=np.float32)
    np.save(tmp_path / "good.npy", labels)
    labels[1] = 3e38
    np.save(tmp_path / "bad.npy", labels)
    arguments = ("--mode=denoise", "--seeds=1-3", "--frames=2")
    run(network, tmp_path / "s", *arguments, f"--labels={tmp_path / 'good.npy'}")
    grid, movie = tmp_path / "g.png", tmp_path / "a.webp"
    files = (f"--grid={grid}", f"--animate={movie}", f"--outdir={tmp_path / 's'}")
    one_bad = (f"--network={network}", *files, f"--labels={tmp_path / 'bad.npy'}")
    done = call("generate.py", *one_bad, *arguments)
    assert done.returncode == 1
    assert "1 of 3 images are not finite, of seed 2" in done.stderr
    assert "2 strips of 2 frames" in done.stdout
    assert [path.name for path in sorted((tmp_path / "s").iterdir())] == [
        "000001.png",
        "000003.png",
    ]
    rows, columns = [f"seed {seed}" for seed in (1, 2, 3)], ["80", "image"]
    found = cells(grid, SHAPE, 6, 2, rows=rows, columns=columns, title=STATE)
    assert found[2:4].min() == 255  # their places are empty
    assert found[4:].min() < 255
    with PIL.Image.open(movie) as opened:
        opened.seek(1)
        frame = opened.convert("RGB")
    title = "step 4 of 4: image"
    found = cells(frame, SHAPE, 3, 2, title=title, min_width=frame.width)
    assert [int(image.min()) == 255 for image in found] == [False, True, False]
    grid.unlink()
    movie.unlink()
    done = call("generate.py", *one_bad[:-1], "--label=3e38,1,1", *arguments)
    assert done.returncode == 1
    assert "3 of 3 images are not finite" in done.stderr
    assert list((tmp_path / "s").iterdir()) == []
    assert not grid.exists()
    assert not movie.exists()


def test_options_without_effect_are_named(unconditional: Path, tmp_path: Path) -> None:
    network, outdir = f"--network={unconditional}", f"--outdir={tmp_path}"
    done = call("generate.py", network, outdir, "--seeds=0", "--frames=3")
    assert "--frames and --fps have no effect: there is no --animate" in done.stderr
    done = call("generate.py", network, f"{outdir}/s", "--seeds=0", "--mode=denoise", "--fps=5")
    assert "--fps has no effect: there is no --animate" in done.stderr
