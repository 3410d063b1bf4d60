"""A wheel, installed where there is no repository, is whole: programs, weights, recipes, digits."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.test_repository import ROOT

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
UNWANTED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "runs", "out", "tests", "benchmarks", "docs"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=UNWANTED)
    command = [*PIP, "--no-index", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True)
    shutil.rmtree(folder / "source")
    return folder / "site"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder."""
    return tmp_path_factory.mktemp("empty")


def run(site: Path, folder: Path, *command: str) -> str:
    """What a command prints; it finds Driftless in the wheel alone."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_trains_and_samples(site: Path, empty: Path) -> None:
    code = (
        "import driftless\n"
        "overrides = 'run.duration=2it', 'preview=off'\n"
        "run = driftless.train('configs/digits-tiny.yaml', *overrides, outdir='runs')\n"
        "print(run.model().sample(range(2), label=3, steps=4).shape)\n"
        "print(driftless.__file__)\n"
    )
    output = run(site, empty, sys.executable, "-c", code)
    assert "torch.Size([2, 1, 8, 8])" in output
    assert str(site) in output


# each in a child of one process that has imported PyTorch, which takes longer than the programs
ONE_AFTER_ANOTHER = """
import gc, os, runpy, sys
import torch._dynamo
import driftless, generation.setup, metrics.frechet, scoring.command_line, training.loop
print(driftless.__file__, flush=True)
gc.collect(), gc.freeze()
for line in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        sys.argv = line.split(" ")
        sys.path[0] = os.path.dirname(sys.argv[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
        raise AssertionError(f"{line} returned")
    if os.waitpid(child, 0)[1]:
        sys.exit(f"failed: {line}")
"""


def test_the_programs_work(site: Path, empty: Path) -> None:
    """One after another, each with what the one before it wrote."""
    bin_, digits = site / "bin", "--detector=digits"
    output = run(
        *(site, empty, sys.executable, "-c", ONE_AFTER_ANOTHER),
        f"{bin_}/driftless-train --config=configs/digits-tiny.yaml --outdir=model --nosubdir"
        " run.duration=2it preview=off",
        f"{bin_}/driftless-generate --network=model --outdir=images --seeds=0-9 --steps=4"
        " --grid=grid.png",
        f"{bin_}/driftless-fid ref --data=assets/digits-8x8.zip --dest=ref.npz {digits}",
        f"{bin_}/driftless-fid calc --images=images --ref=ref.npz --num=10 {digits}",
    )
    assert output.startswith(str(site))
    assert "\nfrechet distance (digits): " in output


def test_a_program_is_called_by_its_name_and_ends_as_the_script_does(
    site: Path, empty: Path
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(project["scripts"]) == 5
    for name in project["scripts"]:
        output = run(site, empty, f"{site}/bin/{name}", "--help")
        assert output.startswith(f"Usage: {name} ")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    wrong = [f"{site}/bin/driftless-fid", "calk"]
    done = subprocess.run(wrong, capture_output=True, text=True, cwd=empty, env=environment)
    assert done.returncode == 2
    assert done.stderr == "error: unknown command 'calk': did you mean 'calc'?\n"


def test_lmdbs_are_read_by_a_process_of_the_wheel(site: Path, empty: Path) -> None:
    pytest.importorskip("lmdb")
    code = (
        "import io, lmdb, PIL.Image\n"
        "from data.convert import convert\n"
        "picture = io.BytesIO()\n"
        "PIL.Image.new('L', (8, 8)).save(picture, 'PNG')\n"
        "with lmdb.open('pictures') as base, base.begin(write=True) as change:\n"
        "    change.put(b'0', picture.getvalue())\n"
        "print(convert('pictures', 'pictures.zip'))\n"
    )
    assert run(site, empty, sys.executable, "-c", code).splitlines()[-1] == "1"
