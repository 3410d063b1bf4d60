"""--animate: a WebP read back frame by frame."""

from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import pytest

from generation.animation import num_animated
from tests.command import assert_refused, call, torchrun
from tests.generation.pictures import cells
from tests.test_generate_cli import write_snapshot
from torch_utils.animations import check_animation, save_animation
from torch_utils.errors import UserError

SHAPE = (3, 8, 6)
STEPS = {
    "denoise": "state x / sqrt(1 + sigma^2) at noise level sigma",
    "progressive": "estimate D(x, sigma) of the image at noise level sigma",
}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(
        tmp_path_factory.mktemp("models") / "c.safetensors", 3, channels=3, steps=4
    )


def frames_of(path: Path) -> list[PIL.Image.Image]:
    with PIL.Image.open(path) as movie:
        assert movie.format == "WEBP"
        found = []
        for index in range(getattr(movie, "n_frames", 1)):
            movie.seek(index)
            found.append(movie.convert("RGB"))
        return found


def generate(network: Path, outdir: Path, *arguments: str) -> str:
    done = call("generate.py", f"--network={network}", f"--outdir={outdir}", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("mode", ["denoise", "progressive"])
def test_frames_are_grids_of_all_images_from_the_first_step_to_the_image(
    mode: str, conditional: Path, tmp_path: Path
) -> None:
    movie, sampler = tmp_path / "m.webp", ("--seeds=0-3", "--steps=5", "--sampler=euler")
    generate(conditional, tmp_path / "plain", *sampler)
    arguments = (f"--mode={mode}", f"--animate={movie}", "--frames=4", *sampler)
    printed = generate(conditional, tmp_path / "s", *arguments, "--fps=4")
    assert printed.startswith(f"animation: {movie}, 4 frames\n")
    frames = frames_of(movie)
    assert len(frames) == 4
    assert len({frame.size for frame in frames}) == 1
    last = images_in(frames[-1], "step 5 of 5: image")
    for seed, image in enumerate(last):
        with PIL.Image.open(tmp_path / "plain" / f"{seed:06d}.png") as picture:
            np.testing.assert_array_equal(image, np.asarray(picture).transpose(2, 0, 1))
    shown, first = STEPS[mode], images_in(frames[0], "step 0 of 5: noise level 80")
    title = f"seed 3: {shown}"
    columns = ["80", "8.4", "0.469", "image"]
    strip = cells(tmp_path / "s" / "000003.png", SHAPE, 4, 4, columns=columns, title=title)
    np.testing.assert_array_equal(first[3], strip[0])
    np.testing.assert_array_equal(last[3], strip[-1])


def images_in(frame: PIL.Image.Image, title: str) -> np.ndarray:
    """The four images of a frame, whose width is that of the longest title."""
    return cells(frame, SHAPE, 4, 2, title=title, min_width=frame.width)


def test_images_have_an_animation_as_well(conditional: Path, tmp_path: Path) -> None:
    """In mode generate: that of the states, in two processes and batches."""
    sampler = ("--seeds=0-3", "--steps=5", "--sampler=euler", "--frames=3")
    files = [f"--animate={tmp_path / f'{name}.webp'}" for name in ("states", "plain")]
    generate(conditional, tmp_path / "s", *sampler, "--mode=denoise", files[0])
    network, outdir = f"--network={conditional}", f"--outdir={tmp_path / 'p'}"
    done = torchrun(2, "generate.py", network, outdir, *sampler, "--batch=1", files[1])
    assert done.returncode == 0, done.stderr
    assert f"animation: {tmp_path / 'plain.webp'}, 3 frames\n" in done.stdout
    states, plain = (frames_of(tmp_path / f"{name}.webp") for name in ("states", "plain"))
    assert len(plain) == 3
    for a, b in zip(states, plain, strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1
    resumed = (network, outdir, *sampler, files[1], "--resume")
    assert_refused(call("generate.py", *resumed), "--animate and --resume")


def test_frames_last_a_while_and_the_last_one_longer(conditional: Path, tmp_path: Path) -> None:
    movie = tmp_path / "m.webp"
    arguments = ("--mode=denoise", "--seeds=0", "--frames=3", "--fps=4", f"--animate={movie}")
    generate(conditional, tmp_path / "s", *arguments)
    with PIL.Image.open(movie) as opened:
        durations = []
        for index in range(opened.n_frames):
            opened.seek(index)
            opened.load()
            durations.append(opened.info["duration"])
        assert durations == [250, 250, 2000]
        assert opened.info["loop"] == 0  # forever


@pytest.mark.parametrize(("frames", "found"), [(None, 24), (2, 2), (5, 5), (31, 31)])
def test_animations_have_as_many_frames_as_asked(
    frames: int | None, found: int, conditional: Path, tmp_path: Path
) -> None:
    movie, extra = tmp_path / "m.webp", [f"--frames={frames}"] if frames else []
    arguments = ("--mode=progressive", "--seeds=0", "--sampler=euler", "--steps=30", *extra)
    printed = generate(conditional, tmp_path / "s", *arguments, f"--animate={movie}")
    assert f"{movie}, {found} frames" in printed
    assert f"1 strip of {frames or 8} frames" in printed
    assert len(frames_of(movie)) == found


def test_each_class_has_a_row(conditional: Path, tmp_path: Path) -> None:
    movie = tmp_path / "m.webp"
    arguments = ("--mode=denoise", "--seeds=0-1", "--class=each", f"--animate={movie}")
    generate(conditional, tmp_path / "s", *arguments, "--frames=2")
    frame = frames_of(movie)[-1]
    names = {"rows": ["ant", "bee", "cow"], "columns": ["seed 0", "seed 1"]}
    images = cells(frame, SHAPE, 6, 2, title="step 4 of 4: image", min_width=frame.width, **names)
    assert len({image.tobytes() for image in images}) == 6


def test_animations_are_bounded() -> None:
    assert num_animated(64, (3, 256, 256)) == 64
    assert num_animated(10**6, (3, 256, 256)) == 81
    assert num_animated(10**6, (1, 8, 8)) == num_animated(10**6, (1, 64, 64)) == 1296
    assert num_animated(5, (3, 8192, 8192)) == 1


@pytest.mark.parametrize("name", ["a.gif", "a", "folder.webp"])
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.webp").mkdir()
    with pytest.raises(UserError, match=r"name ends in \.webp"):
        check_animation(tmp_path / name)


def test_a_pillow_without_webp_is_told(
    conditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PIL.features, "check", lambda feature: feature != "webp")
    movie = f"--animate={tmp_path / 'a.webp'}"
    files = (f"--network={conditional}", f"--outdir={tmp_path / 'o'}")
    done = call("generate.py", *files, "--mode=denoise", "--seeds=0", movie)
    assert_refused(done, "a.webp", "without WebP")
    assert not (tmp_path / "o").exists()


def test_an_animation_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(b"old")
    frames = [PIL.Image.new("RGB", size) for size in [(8, 8), (9, 9)]]
    with pytest.raises((RuntimeError, ValueError), match="frame"):
        save_animation(path, frames, fps=8)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
