"""The modes encode, decode and reconstruct: files, labels, processes, bad input."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from generation.inversion import psnr_line
from tests.command import assert_refused, call, torchrun
from tests.generation.editing import HEIGHT, WIDTH, options
from tests.test_generate_cli import generate, pictures
from torch_utils.grids import is_grid


def test_images_come_back_and_the_ratio_is_that_of_the_files(
    unconditional: Path, images: Path, tmp_path: Path
) -> None:
    found = {}
    for steps in (4, 10):
        outdir, grid = tmp_path / str(steps), tmp_path / f"{steps}.png"
        done = call(
            "generate.py",
            *options(unconditional, outdir, "reconstruct", f"--images={images}", f"--grid={grid}"),
            *(f"--steps={steps}", "--batch=2"),
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "3 of 64 seeds are used, one for each image" in done.stdout
        assert "images stand at noise level 0.002" in done.stdout
        assert is_grid(grid)
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("PSNR: ")]
        mean, least, most = map(float, re.findall(r"\d+\.\d+", line))
        results, originals = pictures(outdir), pictures(images)
        assert list(results) == [f"{seed:06d}.png" for seed in range(3)]
        ratios = [
            10 * math.log10(255**2 / np.square(a - b).mean())
            for a, b in zip(results.values(), originals.values(), strict=True)
        ]
        assert [mean, least, most] == pytest.approx(
            [np.mean(ratios), min(ratios), max(ratios)], abs=0.006
        )
        found[steps] = mean
    assert found[10] > found[4] + 10


def test_latents_of_several_processes_are_those_of_one(
    conditional: Path, images: Path, tmp_path: Path
) -> None:
    arguments = (f"--images={images}", "--seeds=0-2")
    done = call("generate.py", *options(conditional, tmp_path / "a", "encode", *arguments))
    assert (done.returncode, done.stderr) == (0, "")
    both = torchrun(2, "generate.py", *options(conditional, tmp_path / "b", "encode", *arguments))
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("latents of 3 images") == 1
    one, two = (np.load(tmp_path / name / "latents.npz") for name in "ab")
    assert one["latents"].shape == (3, 1, HEIGHT, WIDTH)
    assert one["latents"].dtype == np.float32
    np.testing.assert_array_equal(one["labels"], np.eye(3)[[1, 1, 2]])
    assert one["seeds"].tolist() == [0, 1, 2]
    assert [Path(name).name for name in one["names"]] == ["0.png", "1.png", "0.png"]
    for key in one.files:
        if key == "latents":
            np.testing.assert_allclose(one[key], two[key], atol=1e-4)
        else:
            np.testing.assert_array_equal(one[key], two[key])


def test_images_come_from_a_file_of_latents(
    conditional: Path, images: Path, tmp_path: Path
) -> None:
    """As mode reconstruct has them, with the labels of the images; and from changed ones."""
    given, file = f"--images={images}", tmp_path / "encoded" / "latents.npz"
    again = generate(conditional, tmp_path / "again", "--mode=reconstruct", given)
    done = call("generate.py", *options(conditional, file.parent, "encode", given))
    assert done.returncode == 0, done.stderr
    decode = ("--mode=decode", f"--latents={file}", "--batch=2")
    found = generate(conditional, tmp_path / "a", *decode, f"--grid={tmp_path / 'grid.png'}")
    assert list(found) == [f"{seed:06d}.png" for seed in range(3)]
    for a, b in zip(found.values(), again.values(), strict=True):
        assert np.abs(a - b).max() <= 1
    assert is_grid(tmp_path / "grid.png")
    asked = generate(conditional, tmp_path / "b", *decode, "--class=ant", "--seeds=9")
    assert np.abs(asked["000009.png"] - again["000000.png"]).max() > 1
    with np.load(file) as arrays:
        np.savez(
            tmp_path / "own.npz", latents=arrays["latents"][::-1], labels=arrays["labels"][::-1]
        )
    turned = generate(
        conditional, tmp_path / "c", "--mode=decode", f"--latents={tmp_path / 'own.npz'}"
    )
    for a, b in zip(turned.values(), [*again.values()][::-1], strict=True):
        assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"arr_0": np.zeros((1, 1, HEIGHT, WIDTH))}, "has no array `latents`"),
        ({"latents": np.zeros((1, 3, HEIGHT, WIDTH))}, "(1, 8, 6)"),
        ({"latents": np.full((1, 1, HEIGHT, WIDTH), np.nan)}, "not finite"),
        (
            {"latents": np.zeros((1, 1, HEIGHT, WIDTH)), "labels": np.zeros((1, 4))},
            "choose labels by an option",
        ),
        (
            {"latents": np.zeros((1, 1, HEIGHT, WIDTH)), "labels": np.full((1, 3), "a")},
            "no finite numbers",
        ),
        (
            {"latents": np.zeros((1, 1, HEIGHT, WIDTH)), "labels": np.full((1, 3), 1 / 3)},
            "not one class each",
        ),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_not_of_latents_is_refused(
    conditional: Path, tmp_path: Path, arrays: dict[str, np.ndarray] | None, words: str
) -> None:
    path = tmp_path / "latents.npz"
    if arrays is not None:
        np.savez(path, **arrays)  # type: ignore[arg-type]
    done = call(
        "generate.py", *options(conditional, tmp_path / "out", "decode"), f"--latents={path}"
    )
    assert_refused(done, words)


def test_the_line_about_ratios_counts_equal_images() -> None:
    assert psnr_line([0.0, 0.0]) == "PSNR: infinite, all 2 images are equal to the originals"
    error = 255**2 / 1000
    assert psnr_line([error, 0.0, math.nan]) == (
        "PSNR: mean 30.00 dB, 30.00 to 30.00; infinite for 1 of 2"
    )
