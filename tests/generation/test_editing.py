"""The modes interpolate and inpaint; bad input of all modes that edit images."""

import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.command import assert_refused, call, torchrun
from tests.generation.editing import HEIGHT, WIDTH, draw_mask, options
from tests.test_generate_cli import generate, pictures, write_snapshot
from torch_utils.grids import is_grid
from torch_utils.images import save_png


def strip_images(path: Path, num: int) -> list[np.ndarray]:
    """The images of a strip, by the middle of each enlarged pixel; names are above them."""
    factor, gap = 11, 2
    with PIL.Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    height, width = HEIGHT * factor, WIDTH * factor
    found = []
    for i in range(num):
        cell = pixels[-height - gap : -gap, gap + i * (width + gap) :][:, :width]
        found.append(cell[factor // 2 :: factor, factor // 2 :: factor])
    return found


def test_a_strip_has_the_plain_images_at_its_ends(conditional: Path, tmp_path: Path) -> None:
    """Whatever the batch, and although the classes of the ends differ."""
    plain = generate(conditional, tmp_path / "plain", "--seeds=4-6")  # of classes 2, 1 and 0
    outdir, grid = tmp_path / "strips", tmp_path / "grid.png"
    arguments = ("--seeds=4-6", "--frames=4", f"--grid={grid}", "--batch=3")
    done = call("generate.py", *options(conditional, outdir, "interpolate", *arguments))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"grid: {grid}", f"2 strips of 4 images in {outdir}"]
    assert sorted(path.name for path in outdir.iterdir()) == [
        "000004-000005.png",
        "000005-000006.png",
    ]
    assert is_grid(grid)
    for a in (4, 5):
        path = outdir / f"{a:06d}-{a + 1:06d}.png"
        assert is_grid(path)
        first, *between, last = strip_images(path, 4)
        assert np.abs(first - plain[f"{a:06d}.png"]).max() <= 1
        assert np.abs(last - plain[f"{a + 1:06d}.png"]).max() <= 1
        assert len({image.tobytes() for image in (first, *between, last)}) == 4


def test_strips_of_several_processes_and_classes(conditional: Path, tmp_path: Path) -> None:
    arguments = ("--seeds=5,7", "--frames=2", "--class=each")
    one = generate(conditional, tmp_path / "a", "--mode=interpolate", *arguments)
    assert list(one) == [f"{name}/000005-000007.png" for name in ("ant", "bee", "cow")]
    grids = [tmp_path / "a.png", tmp_path / "b.png"]
    generate(conditional, tmp_path / "a", "--mode=interpolate", *arguments, f"--grid={grids[0]}")
    done = torchrun(
        *(2, "generate.py"),
        *options(conditional, tmp_path / "b", "interpolate", *arguments, f"--grid={grids[1]}"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 strips of 2 images") == 1
    two = pictures(tmp_path / "b")
    assert list(two) == list(one)
    for a, b in [*zip(one.values(), two.values(), strict=True), [*map(pixels_of, grids)]]:
        assert np.abs(a - b).max() <= 1


def pixels_of(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_a_strip_with_noise_is_remarked_and_has_one_right_end(
    unconditional: Path, tmp_path: Path
) -> None:
    sampler = ("--S_churn=3", "--seeds=0,1")
    plain = generate(unconditional, tmp_path / "plain", *sampler)
    outdir = tmp_path / "strips"
    done = call(
        "generate.py", *options(unconditional, outdir, "interpolate", *sampler, "--frames=3")
    )
    assert done.returncode == 0
    assert "all images of a strip have the noise of its first seed" in done.stderr
    first, _, last = strip_images(outdir / "000000-000001.png", 3)
    assert np.abs(first - plain["000000.png"]).max() <= 1
    assert np.abs(last - plain["000001.png"]).max() > 1


@pytest.mark.parametrize("rule", ["model", "fresh"])
def test_known_pixels_are_those_of_the_files(
    unconditional: Path, images: Path, mask: Path, tmp_path: Path, rule: str
) -> None:
    """Images are used in turn; a seed's result depends on nothing but seed and image."""
    given = list(pictures(images).values())
    grid = tmp_path / "grid.png"
    arguments = (f"--images={images}", f"--mask={mask}", f"--known-noise={rule}")
    found = generate(
        unconditional,
        tmp_path / "a",
        *("--mode=inpaint", "--seeds=4-8", "--batch=2", "--end=sigma_min", f"--grid={grid}"),
        *arguments,
    )
    assert list(found) == [f"{seed:06d}.png" for seed in range(4, 9)]
    for i, image in enumerate(found.values()):
        np.testing.assert_array_equal(image[:, :3], given[i % 3][:, :3])
        assert not np.array_equal(image[:, 3:], given[i % 3][:, 3:])
    assert not np.array_equal(found["000004.png"], found["000007.png"])
    assert is_grid(grid)
    again = generate(
        unconditional,
        tmp_path / "b",
        *("--mode=inpaint", "--seeds=4", "--end=sigma_min", *arguments),
    )
    assert np.abs(again["000004.png"] - found["000004.png"]).max() <= 1


def test_each_image_may_have_a_mask_and_labels_are_those_of_the_images(
    conditional: Path, images: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    cuts = [slice(0, 2), slice(2, 4), slice(4, 6)]
    for i, columns in enumerate(cuts):
        draw_mask(masks / f"{i}.png", columns)
    done = call(
        "generate.py",
        *options(conditional, tmp_path / "a", "inpaint", f"--images={images}", f"--mask={masks}"),
        "--seeds=0-2",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "classes: bee 2, cow 1" in done.stdout  # numbers 1 and 2 of the model, 0 and 1 there
    results = pictures(tmp_path / "a").values()
    for columns, image, original in zip(cuts, results, pictures(images).values(), strict=True):
        is_known = np.ones_like(image, bool)
        is_known[:, columns] = False
        np.testing.assert_array_equal(image[is_known], original[is_known])
        assert not np.array_equal(image[~is_known], original[~is_known])
    asked = call(
        "generate.py",
        *options(conditional, tmp_path / "b", "inpaint", f"--images={images}", f"--mask={masks}"),
        *("--seeds=0-2", "--class=ant"),
    )
    assert "classes: ant 3" in asked.stdout
    resumed = call(
        "generate.py",
        *options(conditional, tmp_path / "b", "generate", "--resume"),
        *("--seeds=0-3", "--class=ant"),
    )
    assert_refused(resumed, "mode was inpaint")


@pytest.mark.parametrize("mode", ["interpolate", "inpaint", "encode", "reconstruct"])
def test_images_that_are_not_finite_are_named_and_have_no_file(
    images: Path, mask: Path, tmp_path: Path, mode: str
) -> None:
    """The label makes numbers overflow; files of an earlier run do not stay in their place."""
    network = write_snapshot(tmp_path / "vectors.safetensors", 3, "vector", steps=4)
    given = {"interpolate": ["--frames=2"], "inpaint": [f"--images={images}", f"--mask={mask}"]}
    arguments = [*given.get(mode, [f"--images={images}"]), "--seeds=0,1"]
    outdir = tmp_path / "out"
    good = call("generate.py", *options(network, outdir, mode, *arguments, "--label=0,1,2"))
    assert good.returncode == 0, good.stderr
    assert list(outdir.iterdir())
    bad = call("generate.py", *options(network, outdir, mode, *arguments, "--label=3e38,3e38,3e38"))
    assert bad.returncode == 1, bad.stderr
    assert re.search(r"error: . of . (images|strips).* not finite, of", bad.stderr), bad.stderr
    assert not list(outdir.glob("[!.]*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode=inpaint", "--mask=m.png"], ["mode inpaint needs --images"]),
        (["--mode=inpaint", "--images=IMAGES"], ["mode inpaint needs --mask"]),
        (["--mode=encode"], ["mode encode needs --images"]),
        (["--mode=decode"], ["mode decode needs --latents"]),
        (["--mode=reconstruct"], ["mode reconstruct needs --images"]),
        (["--mode=interpolate", "--seeds=3"], ["--seeds=0,1 or more"]),
        (["--mode=interpolate", "--frames=1"], ["--frames"]),
        (
            ["--mode=inpaint", "--images=IMAGES", "--mask=WIDE"],
            ["wide.png has 7x8 pixels", "6x8: make the mask as large"],
        ),
        (["--mode=inpaint", "--images=IMAGES", "--mask=no"], ["no"]),
        (["--mode=inpaint", "--images=WIDE_IMAGES", "--mask=MASK"], ["7x8", "--resolution=WxH"]),
        (["--mode=encode", "--images=no"], ["no"]),
        (["--mode=encode", "--images=IMAGES", "--sampler=sra1"], ["sra1 draws noise", "heun"]),
        (["--mode=encode", "--images=IMAGES", "--S_churn=1"], ["heun draws noise", "ddim"]),
        (["--mode=reconstruct", "--images=IMAGES", "--steps=1"], ["take more steps"]),
    ],
)
def test_bad_input_is_one_line(
    unconditional: Path,
    images: Path,
    mask: Path,
    tmp_path: Path,
    arguments: list[str],
    words: list[str],
) -> None:
    wide = draw_mask(tmp_path / "wide" / "wide.png", width=7)
    names = {"IMAGES": images, "MASK": mask, "WIDE": wide, "WIDE_IMAGES": wide.parent}
    filled = [
        f"{key}={names.get(value, value)}"
        for key, value in (argument.split("=", 1) for argument in arguments)
    ]
    where = (f"--network={unconditional}", f"--outdir={tmp_path / 'out'}")
    assert_refused(call("generate.py", *where, *filled), *words)
    assert not (tmp_path / "out").exists()


def test_what_changes_nothing_is_warned_of(conditional: Path, images: Path, tmp_path: Path) -> None:
    black = draw_mask(tmp_path / "black.png", slice(0, 0))
    done = call(
        "generate.py",
        *options(conditional, tmp_path / "a", "inpaint", f"--images={images}", f"--mask={black}"),
        *("--seeds=0", "--frames=3"),
    )
    assert done.returncode == 0
    assert "has no white pixel: nothing is made anew" in done.stderr
    assert "--frames has no effect: mode inpaint does not read it" in done.stderr
    other = tmp_path / "other"
    for name in ("x", "y"):
        (other / name).mkdir(parents=True)
        save_png(other / name / "0.png", np.zeros((1, HEIGHT, WIDTH), np.uint8))
    done = call(
        "generate.py",
        *options(conditional, tmp_path / "b", "encode", f"--images={other}", "--sigma_min=0.1"),
        "--seeds=0",
    )
    assert done.returncode == 0
    assert f"the labels of {other} are not the model's" in done.stderr
    assert "the lowest noise level is 0.1, but the images have no noise" in done.stderr
