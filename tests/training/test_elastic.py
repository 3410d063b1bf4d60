"""Processes under torchrun: other numbers of them, and one that is killed, end at the same weights.

Only the order of sums differs between one process and two. Adam divides by the size of a gradient,
so an epsilon above the rounding of gradients keeps that difference as small as it is.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command import run, torchrun
from tests.training.runs import OVERRIDES, assert_equal_states
from tests.training.test_jobs import children_of, has_state, launched, wait_until
from training.state import newest_state, seen_of

RUN = [
    *("--config=configs/digits-tiny.yaml", *OVERRIDES, "optimizer.eps=1e-3", "preview=off"),
    "run.duration=20it",
]
END = 320  # images
WEIGHTS = ("denoiser", "average")


def trainer_of(folder: Path) -> dict[str, Any]:
    """What the newest state of a run has trained."""
    _, state, problems = newest_state(folder)
    assert state is not None
    assert not problems
    found: dict[str, Any] = state["trainer"]
    return found


def done(process: subprocess.CompletedProcess[str]) -> None:
    assert process.returncode == 0, process.stdout + process.stderr


def assert_same_weights(folder: Path, other: Path) -> None:
    """Two runs ended with the same weights, up to the order of sums."""
    ours, theirs = trainer_of(folder), trainer_of(other)
    assert ours["seen"] == theirs["seen"] == END
    for kind in WEIGHTS:
        for name, tensor in theirs[kind].items():
            torch.testing.assert_close(ours[kind][name], tensor, rtol=1e-6, atol=1e-6, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All steps by one process."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done(run("train.py", f"--outdir={folder}", "--nosubdir", *RUN, "run.keep_states=null"))
    return folder


def test_a_run_of_one_process_goes_on_with_two(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for path in (tmp_path / "run").glob("training-state-*"):
        if seen_of(path) > 200:
            path.unlink()
    done(torchrun(2, "train.py", f"--resume={tmp_path / 'run'}", "run.keep_states=1"))
    assert_same_weights(tmp_path / "run", whole)


@pytest.mark.slow
def test_one_process_two_and_one_again_train_what_one_trains(whole: Path, tmp_path: Path) -> None:
    options = [f"--outdir={tmp_path}", "--nosubdir", "--resume=latest", *RUN]
    done(run("train.py", *options, "run.duration=6it"))
    done(torchrun(2, "train.py", *options, "run.duration=12it"))
    assert trainer_of(tmp_path)["seen"] == 192
    done(run("train.py", *options))
    assert_same_weights(tmp_path, whole)


def restarted(folder: Path, *options: str) -> str:
    """Run two processes one of which is killed after the first state; the log."""
    process = launched(
        *("--max-restarts=1", "--", "train.py", f"--outdir={folder}", "--nosubdir"),
        *("--resume=latest", *RUN, *options),
    )
    wait_until(lambda: has_state(folder), process)
    os.kill(children_of(process)[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    log = (folder / "log.txt").read_text()
    assert log.count("run directory: ") == 2, output
    assert re.search(r", on cpu, from \d+ images\n", log), log
    return log


def test_a_killed_worker_is_restarted_and_the_run_ends_as_if_nothing_had_been(
    whole: Path, tmp_path: Path
) -> None:
    """The launcher starts the same command once more, which goes on from the last state."""
    assert f"done: {END} images" in restarted(tmp_path)
    assert_same_weights(tmp_path, whole)


@pytest.mark.slow
def test_a_restarted_run_has_the_bits_and_lines_of_an_undisturbed_one(tmp_path: Path) -> None:
    folder, other = tmp_path / "killed", tmp_path / "whole"
    restarted(folder)
    done(torchrun(2, "train.py", f"--outdir={other}", "--nosubdir", *RUN))
    assert_equal_states(trainer_of(folder), trainer_of(other))
    rows = [(path / "stats.jsonl").read_text().splitlines() for path in (folder, other)]
    losses = [[json.loads(row)["Loss/loss"]["mean"] for row in lines] for lines in rows]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_state_that_cannot_be_written_ends_all_processes_at_the_next_step(
    tmp_path: Path,
) -> None:
    (tmp_path / "training-state-0000000016.pt").mkdir()
    endless = ("run.duration=1000000it", "run.dump=1000000it", "run.snap=1000000it")
    failed = torchrun(2, "train.py", f"--outdir={tmp_path}", "--nosubdir", *RUN, *endless)
    assert failed.returncode == 1
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert sorted(errors) == [
        "error: another process of this run has failed",
        f"error: cannot write to {tmp_path}: Is a directory; what was saved before is intact",
    ]
