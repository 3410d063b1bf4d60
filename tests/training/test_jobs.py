"""What job scripts, schedulers and terminals do to a run, with real processes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.command import ENVIRONMENT, LAUNCHER, ROOT, forked_by, run, start
from tests.preloaded import Program
from tests.training.runs import (
    CPU,
    OVERRIDES,
    assert_equal_states,
    tiny_config,
    tiny_data,
    train_tiny,
)
from torch_utils.errors import Failure
from training.loop import train
from training.run_log import RunLog
from training.state import newest_state, seen_of

TINY = ["--config=configs/digits-tiny.yaml", *OVERRIDES]


def launched(*options: str) -> subprocess.Popen[str]:
    """PyTorch's own launcher with two processes, in the repository's root, its output in a pipe.

    Args:
        options: of the launcher, the script and its arguments.
    """
    return subprocess.Popen(
        [sys.executable, *LAUNCHER, "--nproc_per_node=2", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )


def wait_until(condition: Any, process: subprocess.Popen[str] | Program | None = None) -> None:
    """Wait for something that must become true."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not come"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def has_state(folder: Path) -> bool:
    return any(folder.glob("training-state-*.pt"))


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """Numbers of the processes that PyTorch's launcher has started."""
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "train.py"], capture_output=True, text=True
    )
    return [int(number) for number in found.stdout.split()]


def is_running(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("num", [1, 2])
def test_a_signal_during_a_preview_drops_it_and_the_state_is_there_already(
    num: int, tmp_path: Path
) -> None:
    """The preview would take hours. With two processes the signal reaches only one of them, and is
    what a launcher passes on when its terminal is closed.
    """
    options = [f"--outdir={tmp_path}", "--nosubdir", *TINY, "run.tick=1it"]
    slow = ["preview.steps=100000", "preview.num_images=64"]
    process = start("train.py", *options, *slow, processes=num if num > 1 else 0)
    wait_until(lambda: has_state(tmp_path), process)
    time.sleep(1)  # into the preview
    assert process.poll() is None
    target = forked_by(process)[-1] if num == 2 else process.pid
    os.kill(target, signal.SIGINT if num == 1 else signal.SIGHUP)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == (75 if num == 1 else 1), output  # the launcher knows only 1
    assert "preview dropped" in output
    assert "stopped at 16 images: state saved" in output
    if num == 1:
        assert "stopping: finishing this network call, and dropping the preview" in output
    assert not list(tmp_path.glob("samples-*"))


def test_a_reader_that_goes_away_and_a_closed_terminal_end_no_run(tmp_path: Path) -> None:
    process = start("train.py", f"--outdir={tmp_path}", "--nosubdir", *TINY, "run.tick=1it")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    wait_until(lambda: has_state(tmp_path))
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert newest_state(tmp_path)[1] is not None
    log = (tmp_path / "log.txt").read_text()
    assert "done: 192 images" in log


def test_processes_whose_launcher_was_killed_save_and_end(tmp_path: Path) -> None:
    options = [f"--outdir={tmp_path}", "--nosubdir", *TINY, "run.duration=100000it"]
    process = launched("train.py", *options)
    wait_until(lambda: has_state(tmp_path), process)
    children = children_of(process)
    assert len(children) == 2
    process.kill()
    process.wait()
    killed = time.monotonic()
    wait_until(lambda: not any(map(is_running, children)))
    assert time.monotonic() - killed < 45  # some of it for a disk and two cores that others share
    assert "stopped at" in (tmp_path / "log.txt").read_text()
    path, state, problems = newest_state(tmp_path)
    assert path is not None
    assert state is not None
    assert not problems
    assert seen_of(path) == state["trainer"]["seen"]


def test_a_process_that_sees_new_files_late_goes_on_from_the_same_state(tmp_path: Path) -> None:
    """Rank 1 sees no state at first; looking for itself, it would start from the beginning."""
    folder, whole = tmp_path / "late", tmp_path / "whole"
    options = [*TINY, "run.duration=6it", "preview=off"]
    done = run("train.py", f"--outdir={folder}", "--nosubdir", *options)
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder, whole)
    late = ROOT / "tests" / "training" / "late_listing" / "sitecustomize.py"
    more = [f"--resume={folder}", "run.duration=8it"]
    process = start("train.py", *more, processes=2, site=late)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert run("train.py", f"--resume={whole}", "run.duration=8it").returncode == 0
    ends = [newest_state(path)[1] for path in (folder, whole)]
    weights = [end["trainer"]["denoiser"] for end in ends if end is not None]
    for name, tensor in weights[1].items():
        torch.testing.assert_close(weights[0][name], tensor, rtol=1e-3, atol=2e-5, msg=name)


def broken_state(folder: Path) -> dict[str, Any]:
    """A state after which every step is bad: weights too large for float32."""
    train_tiny(folder, "run.duration=2it")
    state = newest_state(folder)[1]
    assert state is not None
    state["trainer"]["denoiser"]["model.enc.8x6_conv.weight"].fill_(1e38)
    return state


def test_no_state_is_written_in_a_streak_of_bad_steps_by_a_signal_neither(
    tmp_path: Path,
) -> None:
    state = broken_state(tmp_path)
    endless = tiny_config("run.max_bad_steps=100000", "run.duration=100000it", "run.tick=1000it")
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert not train(endless, tiny_data(), tmp_path, CPU, state=state, heeds_signals=True)
    assert "no state was saved here" in (tmp_path / "log.txt").read_text()
    assert {seen_of(path) for path in tmp_path.glob("training-state-*")} == {16, 32}


def test_a_run_whose_last_steps_were_bad_is_not_done(tmp_path: Path) -> None:
    state = broken_state(tmp_path)
    config = tiny_config("run.duration=4it")
    with pytest.raises(Failure, match="no state was saved here"):
        train(config, tiny_data(), tmp_path, CPU, state=state)
    assert {seen_of(path) for path in tmp_path.glob("training-state-*")} == {16, 32}


def test_a_log_cut_by_a_kill_is_mended(tmp_path: Path) -> None:
    reference = tmp_path / "whole"
    final = train_tiny(reference)
    folder = tmp_path / "run"
    train_tiny(folder, "run.duration=6it")
    stats, text = folder / "stats.jsonl", folder / "log.txt"
    good = stats.read_bytes()
    num_lines = good.count(b"\n")
    for damaged in (good[:-1], good[:-30], good[:50] + b"\xff\xfe" + good[52:], good + b"\0\0{"):
        stats.write_bytes(damaged)
        RunLog(folder).rewind(10**6)
        content = stats.read_bytes()
        assert content.endswith(b"\n")
        assert content.count(b"\n") in (num_lines, num_lines - 1)
    stats.write_bytes(good[:-1])
    text.write_text(text.read_text()[:-10])
    assert_equal_states(train_tiny(folder, resume=True)["trainer"], final["trainer"])
    assert stats.read_bytes().count(b"\n") == (reference / "stats.jsonl").read_bytes().count(b"\n")
    assert all(line.split()[0] for line in text.read_text().splitlines())
