"""Runs on a disk that takes seconds to flush a state: they train on, and a stop waits for it."""

import signal
import time
from pathlib import Path

from tests.command import ROOT, start
from tests.preloaded import Program
from tests.training.runs import OVERRIDES
from tests.training.test_jobs import wait_until
from training.state import newest_state, seen_of

FAULTS = ROOT / "tests" / "machines" / "faults"
ENDLESS = ("run.duration=1000000it", "run.tick=1it", "run.snap=1000000it", "preview=off")


def slow_run(folder: Path, seconds: float, *options: str) -> Program:
    """Start an endless run whose states take so long."""
    return start(
        *("train.py", "--config=configs/digits-tiny.yaml", f"--outdir={folder}", "--nosubdir"),
        *(*OVERRIDES, *ENDLESS, *options),
        site=FAULTS / "sitecustomize.py",
        FAULTS=f"fsync_state:{seconds}",
    )


def is_writing(folder: Path) -> bool:
    """Whether a state is being written."""
    return any(folder.glob(".training-state-*"))


def num_ticks(folder: Path) -> int:
    path = folder / "stats.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_training_goes_on_while_a_state_is_written_and_sigterm_waits_for_it(
    tmp_path: Path,
) -> None:
    process = slow_run(tmp_path, 2.5, "run.dump=1000000it")
    wait_until(lambda: is_writing(tmp_path), process)
    ticks = num_ticks(tmp_path)
    wait_until(lambda: num_ticks(tmp_path) >= ticks + 3, process)
    assert is_writing(tmp_path), "the steps waited for the disk"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "state saved" in output
    states = sorted(tmp_path.glob("training-state-*"))
    assert len(states) == 2  # the one that was under way, and that of the stop
    path, state, problems = newest_state(tmp_path)
    assert not problems
    assert state is not None
    assert path == states[-1]
    assert seen_of(path) == state["trainer"]["seen"] > seen_of(states[0])


def test_a_kill_while_a_state_is_written_leaves_the_last_whole_one(tmp_path: Path) -> None:
    process = slow_run(tmp_path, 1, "run.dump=1it")
    wait_until(lambda: len(list(tmp_path.glob("training-state-*"))) >= 2, process)
    wait_until(lambda: is_writing(tmp_path), process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    newest = max(tmp_path.glob("training-state-*"))
    path, state, problems = newest_state(tmp_path)
    assert (path, problems) == (newest, [])
    assert state is not None
    assert state["trainer"]["seen"] == seen_of(newest)
