"""Every mode of generate.py calls the model through CUDA graphs; a recorder stands in for them."""

import functools
from pathlib import Path

import numpy as np
import pytest

from diffusion.graphs import Graphs
from generation import MODES
from tests.command import call
from tests.generation.editing import options
from tests.samplers.test_graphs import Again


def arguments(mode: str, given: dict[str, Path]) -> list[str]:
    """What a mode needs; eight images in batches of three, where it takes so many."""
    own = {
        "interpolate": ["--frames=4", "--seeds=0-2"],
        "inpaint": [f"--images={given['images']}", f"--mask={given['mask']}"],
        "encode": [f"--images={given['images']}"],
        "decode": [f"--latents={given['latents']}"],
        "reconstruct": [f"--images={given['images']}"],
        "scales": ["--scales=0,2"],
    }
    return [*own.get(mode, ["--seeds=0-7"]), "--batch=3", "--sampler=heun", "--steps=6"]


@pytest.fixture(scope="module")
def given(
    conditional: Path, images: Path, mask: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    outdir = tmp_path_factory.mktemp("latents")
    done = call("generate.py", *options(conditional, outdir, "encode", f"--images={images}"))
    assert done.returncode == 0, done.stderr
    return {"images": images, "mask": mask, "latents": next(outdir.glob("*.npz"))}


def content(path: Path) -> object:
    """The bytes of a picture, the numbers of an archive."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as arrays:
        return {name: arrays[name].tolist() for name in arrays.files}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_replays_calls_and_makes_the_same(
    conditional: Path,
    given: dict[str, Path],
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {}
    recorder = Again()
    for name in ("plain", "graphs"):
        if name == "graphs":
            monkeypatch.setattr("diffusion.calls.Calls", functools.partial(Graphs, recorder))
            monkeypatch.setattr("samplers.generate.Calls", functools.partial(Graphs, recorder))
        done = call(
            "generate.py", *options(conditional, tmp_path / name, mode, *arguments(mode, given))
        )
        assert done.returncode == 0, done.stderr
        made[name] = {
            path.relative_to(tmp_path / name): content(path)
            for path in (tmp_path / name).rglob("*.*")
        }
    assert recorder.replays > 0
    assert made["plain"]
    assert made["graphs"] == made["plain"]
