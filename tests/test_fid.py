"""fid.py as a user runs it: real zips, one line for every mistake.

References are made by real processes; most other command lines are run within this one.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.command import ROOT, call, run, run_afresh, torchrun
from torch_utils.grids import save_grid

DATASET = str(ROOT / "assets" / "digits-8x8.zip")


def calc(ref: Path | str, *args: str, detector: str = "pixels") -> subprocess.CompletedProcess[str]:
    """Call fid.py calc on the shipped digits; later options override earlier ones."""
    options = [f"--images={DATASET}", f"--ref={ref}", f"--detector={detector}", "--num=100"]
    return call("fid.py", "calc", *options, *args)


def assert_one_error(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Exit code 2 and exactly one line on stderr."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert re.search(message, done.stderr), done.stderr


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """References of the shipped digits, made by `fid.py ref`, in a folder that it has to make."""
    folder = tmp_path_factory.mktemp("fid") / "refs"
    paths = {name: folder / f"{name}.npz" for name in ("pixels", "digits")}
    for name, path in paths.items():
        done = run("fid.py", "ref", f"--data={DATASET}", f"--dest={path}", f"--detector={name}")
        assert done.returncode == 0, done.stderr
        assert f"({name}) of 1797 images" in done.stdout
        assert done.stderr == ""
    return paths


def test_a_reference_names_its_detector_and_source(references: dict[str, Path]) -> None:
    for name, path in references.items():
        with np.load(path, allow_pickle=False) as file:
            assert str(file["detector"]) == name
            assert str(file["source"]) == "digits-8x8"
            assert int(file["num"]) == 1797
            assert file["mu"].shape == (64,)
            assert file["sigma"].dtype == np.float64


@pytest.mark.parametrize("name", ["pixels", "digits"])
def test_a_data_set_has_no_distance_from_itself(references: dict[str, Path], name: str) -> None:
    done = calc(references[name], "--num=1797", detector=name)
    line = done.stdout.splitlines()[0]
    match = re.fullmatch(
        rf"frechet distance \({name}\): (\S+)   1797 images vs {name}.npz \(1797 images\)", line
    )
    assert match, done
    assert float(match[1]) < 1e-5
    assert "FID" not in done.stdout


def test_a_subset_depends_on_the_seed_and_not_on_the_batch_size(
    references: dict[str, Path],
) -> None:
    first, same, other = (
        float(calc(references["pixels"], *args).stdout.split()[3])
        for args in ([], ["--batch=7"], ["--seed=1"])
    )
    assert first > 0
    assert same == pytest.approx(first, rel=1e-5)
    assert other != pytest.approx(first, rel=1e-3)


def test_a_classifier_also_prints_its_score(references: dict[str, Path]) -> None:
    lines = calc(references["digits"], detector="digits").stdout.splitlines()
    match = re.fullmatch(
        r"classifier score \(digits\): (\S+) \+- (\S+)   over 10 splits of 100 images, "
        r"as published; (\S+) over all at once",
        lines[1],
    )
    assert match, lines
    assert 5 < float(match[1]) < float(match[3]) <= 10
    few = calc(references["digits"], "--num=5", detector="digits")
    line = r"classifier score \(digits\): \S+   5 images at once; published scores use 10 splits\n"
    assert re.search(line, few.stdout)
    assert "5 images are too few for 64 features: the distance is biased upwards" in few.stderr


def test_fewer_images_than_asked_for_are_an_error(references: dict[str, Path]) -> None:
    done = calc(references["pixels"], "--num=50000")
    assert_one_error(done, "Found 1797 images, but expected at least 50000: .*--num=1797")


def test_a_reference_of_another_detector_is_an_error(references: dict[str, Path]) -> None:
    done = calc(references["pixels"], detector="digits")
    assert_one_error(done, "made with detector 'pixels', not 'digits'")


def test_a_reference_of_another_image_size_is_an_error(tmp_path: Path) -> None:
    ref = tmp_path / "ref.npz"
    np.savez(ref, mu=np.zeros(12), sigma=np.eye(12), detector="pixels")
    assert_one_error(calc(ref), "has 12 features .* 1x8x8 images have 64")


def pictures(folder: Path, height: int, width: int, num: int = 10) -> Path:
    folder.mkdir()
    for seed in range(num):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{seed:06d}.png")
    return folder


def test_only_images_of_one_shape_are_compared(tmp_path: Path) -> None:
    """As many pixels, turned: the number would mean nothing."""
    ref = tmp_path / "wide.npz"
    wide, tall = pictures(tmp_path / "wide", 4, 16), pictures(tmp_path / "tall", 16, 4)
    made = call("fid.py", "ref", f"--data={wide}", f"--dest={ref}", "--detector=pixels")
    assert made.returncode == 0, made.stderr
    assert "the reference's 10 images are too few for 64 features" in made.stderr
    same = calc(ref, f"--images={wide}", "--num=10")
    assert same.returncode == 0, same.stderr
    assert same.stderr.count("too few for 64 features") == 2
    done = calc(ref, f"--images={tall}", "--num=10")
    assert_one_error(done, "made of 1x4x16 images .*tall are 1x16x4")


def test_our_own_grids_are_left_out(references: dict[str, Path], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 8, 8)
    plain = calc(references["pixels"], f"--images={folder}", "--num=10")
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    save_grid(folder / "a-grid.png", images, 2)
    save_grid(folder / "of one size.png", images[:1], 1, min_side=8, gap=0)
    done = calc(references["pixels"], f"--images={folder}", "--num=10")
    assert done.returncode == 0, done.stderr
    first, rest = done.stdout.split("\n", 1)
    assert first == "left out: a-grid.png, of one size.png (grids of generate.py)"
    assert rest == plain.stdout
    dest = f"--dest={tmp_path / 'ref.npz'}"
    made = call("fid.py", "ref", f"--data={folder}", dest, "--detector=pixels")
    assert made.stdout.startswith(first)
    assert "of 10 images" in made.stdout


def test_a_covariance_that_cannot_be_one_is_an_error(tmp_path: Path) -> None:
    sigma = np.eye(64)
    sigma[3, 3] = -0.01
    np.savez(tmp_path / "ref.npz", mu=np.zeros(64), sigma=sigma, detector="pixels")
    assert_one_error(calc(tmp_path / "ref.npz"), "damaged: .* not positive semidefinite")


def test_a_reference_without_detector_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "edm.npz", mu=np.zeros(64), sigma=np.eye(64))
    assert_one_error(calc(tmp_path / "edm.npz"), "does not say its detector")


def test_a_damaged_reference_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ref.npz").write_bytes(b"PK nonsense")
    assert_one_error(calc(tmp_path / "ref.npz"), "damaged or not an .npz")


def test_mistakes_on_the_command_line_are_one_line_each(tmp_path: Path) -> None:
    assert_one_error(calc("absent.npz"), "no such reference file")
    assert_one_error(calc("x.npz", detector="digit"), "did you mean 'digits'")
    assert_one_error(calc("x.npz", "--num=1"), "--num")
    assert_one_error(calc("x.npz", "--metrics=fids"), "did you mean 'fid'")
    assert_one_error(calc("x.npz", "--metrics=,"), "--metrics=,: give some of fid, is, kid, pr")
    assert_one_error(calc("x.npz", "--metrics=is"), "'is' needs classes, and detector 'pixels'")
    assert_one_error(calc("x.npz", "--weights=w.pth"), "--weights=w.pth: detector 'pixels' has")
    without = call("fid.py", "calc", f"--images={DATASET}", "--num=100", "--detector=pixels")
    assert_one_error(without, "metric 'fid' needs a reference to compare with: give --ref")
    assert_one_error(run_afresh("fid.py", "calk"), "did you mean 'calc'")
    ref = ("fid.py", "ref", "--detector=pixels")
    other = call(*ref, f"--data={DATASET}", f"--dest={tmp_path / 'ref.pkl'}")
    assert_one_error(other, r"\*\.npz")
    absent = call(*ref, "--data=absent.zip", f"--dest={tmp_path / 'a.npz'}")
    assert_one_error(absent, "absent.zip")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [["--help"], ["calc", "--help"], ["ref", "--help"]])
def test_help_answers_without_torch(args: list[str]) -> None:
    code = (
        "import sys, fid\ntry: fid.main(sys.argv[1:])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    data = ROOT / "assets" / "digits-8x8.zip"
    common = [f"--images={data}", "--num=301", "--detector=digits", "--device=cpu"]
    outputs = []
    for name, by in (("one", run), ("two", lambda *words: torchrun(2, *words))):
        ref = tmp_path / f"{name}.npz"
        made = by("fid.py", "ref", f"--data={data}", f"--dest={ref}", *common[2:])
        assert made.returncode == 0, made.stderr
        done = by("fid.py", "calc", f"--ref={ref}", *common)
        assert done.returncode == 0, done.stderr
        numbers, _, made_with = done.stdout.rpartition(", reference ")  # the hash of its file
        assert len(made_with) == 13
        outputs.append(numbers.replace(ref.name, "ref"))
    assert outputs[0] == outputs[1]
    files = [np.load(tmp_path / f"{name}.npz") for name in ("one", "two")]
    np.testing.assert_allclose(files[0]["sigma"], files[1]["sigma"], rtol=1e-9, atol=1e-12)
