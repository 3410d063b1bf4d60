"""Golden cases of EDM's pickles: D of the imported network, and the images of generate.py."""

import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from importers.edm import read_edm
from tests.command import call
from tests.parity.harness import Case, relative_error
from torch_utils.command import IntList

TRAP = "EMBEDDED_SOURCE_WAS_EXECUTED"  # the file that the source text in a golden pickle writes


def edm_snapshot(case: Case) -> float:
    """The denoiser's output; the source in the pickle must not run."""
    inputs = ("x", "sigma", "labels", "augment_labels")
    given = {name: torch.from_numpy(case.arrays[name]) for name in inputs if name in case.arrays}
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            denoiser = read_edm(case.folder.absolute() / case.spec["pickle"]).denoiser()
            with torch.no_grad():
                denoised = denoiser(**given)
            if os.listdir():
                raise AssertionError(f"reading wrote {os.listdir()}")
        finally:
            os.chdir(here)
    if Path(TRAP).exists():
        raise AssertionError(f"{TRAP} exists")
    return relative_error(denoised.numpy(), case.arrays["D"])


def generated(case: Case) -> float:
    """The largest difference in grey levels of what the command writes, seed by seed."""
    script, *options = shlex.split(case.spec["command"])
    golden = case.arrays[case.name].astype(np.float64)  # [seed, H, W, C]
    said = [option.partition("=")[2] for option in options if option.startswith("--seeds=")]
    seeds = IntList().convert(said[-1] if said else "0-63", None, None)
    with tempfile.TemporaryDirectory() as outdir:
        pickle = (case.folder / case.spec["pickle"]).absolute()
        done = call(script, *options, f"--network={pickle}", f"--outdir={outdir}")
        if done.returncode:
            raise AssertionError(done.stderr)
        files = [next(Path(outdir).rglob(f"{seed:06d}.png")) for seed in seeds]
        ours = np.stack([np.asarray(PIL.Image.open(file), np.float64) for file in files])
    if Path(TRAP).exists():
        raise AssertionError(f"{TRAP} exists")
    return float(np.abs(ours.reshape(golden.shape) - golden).max())
