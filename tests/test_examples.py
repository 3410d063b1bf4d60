"""The examples run as they are, from another folder, and show what they are about."""

import re
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from tests.command import ENVIRONMENT, ROOT, start

EXAMPLES = ROOT / "examples"
SHORT = ("run.duration=6it", "run.tick=2it", "run.batch=64", "preview=off")


def example(name: str, folder: Path, *arguments: object) -> str:
    """What an example prints, in a fork of the preloaded process."""
    site = folder / "site.py"
    site.write_text(f"import os\nos.chdir({str(folder)!r})\n")
    program = start(str(EXAMPLES / name), *arguments, site=site)
    output, _ = program.communicate()
    assert program.returncode == 0, output
    return output


def example_of_its_own(name: str, folder: Path, *arguments: object) -> str:
    """What an example prints, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in runs/."""
    folder = tmp_path_factory.mktemp("examples")
    output = example_of_its_own("train_model.py", folder, "runs", *SHORT)
    losses = [float(loss) for loss in re.findall(r"kimg   loss ([\d.]+)", output)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert "(4, 1, 8, 8), from -1.00 to 1.00" in output
    return folder


def the_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def test_a_model_is_sampled(folder: Path) -> None:
    output = example("sample_images.py", folder, the_run(folder), "grid.png")
    with PIL.Image.open(folder / "grid.png") as picture:
        assert picture.height > 10 * 32
    errors = [float(error) for error in re.findall(r"leaves an error of ([\d.]+)", output)]
    assert errors == sorted(errors)
    assert len(errors) == 3


def test_a_sampler_of_ones_own_is_better_than_eulers(folder: Path) -> None:
    output = example("own_sampler.py", folder, the_run(folder))
    found = re.findall(r"(\w+) +(\d+) calls   error ([\d.]+)", output)
    assert [(name, calls) for name, calls, _ in found] == [
        ("euler", "15"),
        ("heun", "15"),
        ("dpm_solver", "15"),
    ]
    error = {name: float(number) for name, _, number in found}
    assert 2 * error["dpm_solver"] < error["euler"]


def test_a_loss_term_of_ones_own_is_trained(tmp_path: Path) -> None:
    output = example("own_loss.py", tmp_path, "runs", *SHORT)
    first, last = map(float, re.findall(r"([\d.]+) -> ([\d.]+)", output)[0])
    assert last < first
    assert "pseudo_huber" in next((tmp_path / "runs").iterdir()).name


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    names = [path.name for path in EXAMPLES.glob("*.py")]
    assert len(names) == 4
    assert all(re.search(rf'example\w*\("{name}"', tests) for name in names)
