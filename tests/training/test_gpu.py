"""What only a GPU can show; skipped where there is none."""

from pathlib import Path

import pytest
import torch

from tests.command import run, torchrun
from tests.training.runs import OVERRIDES
from training.state import newest_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
TINY = ["--config=configs/digits-tiny.yaml", "--device=cuda", *OVERRIDES]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The averaged weights of a run's newest state."""
    state = newest_state(folder)[1]
    assert state is not None
    result: dict[str, torch.Tensor] = state["trainer"]["average"]
    return result


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_nccl_in_a_world_of_one_is_the_plain_process(precision: str, tmp_path: Path) -> None:
    options = [*TINY, "--nosubdir", f"--precision={precision}"]
    plain = run("train.py", f"--outdir={tmp_path / 'plain'}", *options)
    assert plain.returncode == 0, plain.stderr
    grouped = torchrun(1, "train.py", f"--outdir={tmp_path / 'nccl'}", *options)
    assert grouped.returncode == 0, grouped.stderr
    a, b = weights(tmp_path / "plain"), weights(tmp_path / "nccl")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-4, msg=name)


def test_a_run_goes_on_on_the_gpu(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("train.py", f"--outdir={whole}", "--nosubdir", *TINY).returncode == 0
    first = run("train.py", f"--outdir={parts}", "--nosubdir", *TINY, "run.duration=4it")
    assert first.returncode == 0, first.stderr
    assert run("train.py", f"--resume={parts}", "run.duration=12it").returncode == 0
    a, b = weights(whole), weights(parts)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-4, msg=name)


def test_images_of_seeds_agree_between_cpu_and_gpu(tmp_path: Path) -> None:
    import numpy as np
    import PIL.Image

    run_dir = tmp_path / "run"
    assert run("train.py", f"--outdir={run_dir}", "--nosubdir", *TINY).returncode == 0
    for device in ("cpu", "cuda"):
        command = [f"--network={run_dir}", f"--outdir={tmp_path / device}", "--seeds=0-7"]
        done = run("generate.py", *command, f"--device={device}")
        assert done.returncode == 0, done.stderr
    for path in sorted((tmp_path / "cpu").glob("*.png")):
        a, b = (np.asarray(PIL.Image.open(tmp_path / d / path.name)) for d in ("cpu", "cuda"))
        assert np.abs(a.astype(int) - b.astype(int)).max() <= 2
