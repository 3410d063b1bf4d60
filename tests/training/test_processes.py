"""Several processes, signals and kills, with real processes."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from tests.command import assert_refused, call, forked_by, run, start, torchrun
from tests.preloaded import Program
from tests.training.runs import OVERRIDES, assert_equal_states
from torch_utils.files import replacing
from training.state import load_state, newest_state

TINY = ["--config=configs/digits-tiny.yaml", *OVERRIDES]


def final_state(folder: Path) -> dict:
    """The newest state of a run directory."""
    path, state, problems = newest_state(folder)
    assert state is not None
    assert not problems, problems
    assert path is not None
    return state


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in one process."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = run("train.py", f"--outdir={folder}", "--nosubdir", *TINY)
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_are_one_process_with_two_micro_batches(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    done = torchrun(2, "train.py", f"--outdir={folder}", "--nosubdir", *TINY)
    assert done.returncode == 0, done.stderr
    one, two = final_state(whole)["trainer"], final_state(folder)["trainer"]
    for kind in ("denoiser", "average"):
        for name, tensor in one[kind].items():
            torch.testing.assert_close(two[kind][name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    stats = [(f / "stats.jsonl").read_text().splitlines() for f in (whole, folder)]
    for a, b in zip(*(map(json.loads, lines) for lines in stats), strict=True):
        assert a["Loss/loss"]["num"] == b["Loss/loss"]["num"]
        assert a["Loss/loss"]["mean"] == pytest.approx(b["Loss/loss"]["mean"], rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops_and_the_run_goes_on_to_the_same_bits(
    number: signal.Signals, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    options = [f"--outdir={folder}", "--nosubdir", *TINY, "run.tick=1it", "run.snap=3000it"]
    process = start("train.py", *options, "run.duration=3000it", "run.dump=3000it")
    wait_for(folder / "stats.jsonl", process, lines=3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "state saved" in output
    assert f"--resume={folder}" in output
    stopped = final_state(folder)["trainer"]["seen"]
    assert 16 < stopped < 3000 * 16

    goal = f"run.duration={stopped + 48}img"
    resumed = run("train.py", f"--resume={folder}", goal)
    assert resumed.returncode == 0, resumed.stderr
    other = tmp_path / "other"
    through = run("train.py", f"--outdir={other}", "--nosubdir", *options[2:], goal)
    assert through.returncode == 0, through.stderr
    a, b = final_state(folder)["trainer"], final_state(other)["trainer"]
    for kind in ("denoiser", "average", "optimizer"):
        assert_equal_states(a[kind], b[kind])


def test_all_processes_stop_after_the_same_step(tmp_path: Path) -> None:
    """The signal reaches only one of them."""
    folder = tmp_path / "run"
    options = [f"--outdir={folder}", "--nosubdir", *TINY, "run.duration=20000it"]
    process = start("train.py", *options, "run.tick=5000it", "preview=off", processes=2)
    wait_for(folder / "stats.jsonl", process)
    time.sleep(0.5)  # between ticks
    children = forked_by(process)
    assert len(children) == 2
    os.kill(children[1], signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert "state saved" in output, output
    assert "lost contact" not in output
    assert 16 < final_state(folder)["trainer"]["seen"] < 20000 * 16


def wait_for(path: Path, process: Program, lines: int = 1) -> None:
    """Wait until a run has written so many lines of a file."""
    for _ in range(1200):
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


# states at every step and pictures in between: many kills hit the moment of saving
BUSY = [*TINY, "run.dump=1it", "run.tick=1it", "run.duration=3000it", "run.snap=10it"]


def progress(folder: Path, pattern: str) -> tuple[str, int]:
    """Name and size of the newest file of a kind, both of which grow."""
    newest = max(folder.rglob(pattern), default=None)
    return ("", 0) if newest is None else (newest.name, newest.stat().st_size)


def kill_again_and_again(options: list[str], folder: Path, kills: int, seed: int) -> None:
    """Run one command so often, killed at random moments: about its first step, or after it."""
    moments = random.Random(seed)
    for number in range(kills):
        pattern = ("training-state-*.pt", "log.txt")[number % 2]
        before = progress(folder, pattern)
        process = start("train.py", *options)
        wait = time.monotonic() + 60
        while time.monotonic() < wait and progress(folder, pattern) == before:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.25))
        assert process.poll() is None, process.communicate()[0]
        process.kill()
        process.communicate()


def check_kills(folder: Path, kills: int, seed: int) -> None:
    """However often it was killed, one command ends at the bits of an uninterrupted run."""
    options = [f"--outdir={folder / 'killed'}", "--resume=latest", *BUSY]
    kill_again_and_again(options, folder / "killed", kills, seed)
    (killed_run,) = (folder / "killed").iterdir()  # one run directory, however often it was killed
    seen = final_state(killed_run)["trainer"]["seen"]
    goal = f"run.duration={seen + 48}img"
    done = run("train.py", *options, goal)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"from {seen} images" in done.stdout
    whole = folder / "whole"
    assert run("train.py", f"--outdir={whole}", *BUSY, goal).returncode == 0
    assert list((folder / "killed").iterdir()) == [killed_run]
    (whole_run,) = whole.iterdir()
    a, b = (final_state(run_dir)["trainer"] for run_dir in (killed_run, whole_run))
    assert_equal_states(a, b)
    names = [sorted(p.name for p in f.glob("*.safetensors")) for f in (killed_run, whole_run)]
    assert names[0] == names[1]
    lines = [(f / "stats.jsonl").read_text().splitlines() for f in (killed_run, whole_run)]
    assert len(lines[0]) == len(lines[1])


def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    check_kills(tmp_path, 10, seed=0)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    for seed in range(1, 6):
        (tmp_path / str(seed)).mkdir()
        check_kills(tmp_path / str(seed), 10, seed)


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def mounted(folder: Path, options: str) -> bool:
    """Mount a small file system there, if this machine lets us."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_a_full_disk_is_one_clear_line_and_older_states_are_intact(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not mounted(disk, "size=1m"):
        pytest.skip("mounting a tmpfs needs privileges")
    try:
        done = run(
            "train.py", f"--outdir={disk}", "--nosubdir", *TINY, "run.dump=1it", "run.tick=1it"
        )
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "No space left on device" in done.stderr
        assert "intact" in done.stderr
        states = sorted(disk.glob("training-state-*.pt"))
        assert states
        for path in states:
            load_state(path)
        assert not list(disk.glob(".*.tmp-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_outdir_is_refused_before_any_work(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not mounted(disk, "size=1m,ro"):
        pytest.skip("mounting a tmpfs needs privileges")
    try:
        for options in ([f"--outdir={disk}"], [f"--outdir={disk}", "--nosubdir"]):
            assert_refused(call("train.py", *options, *TINY), "cannot write", "Read-only")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_runs_started_at_once_get_different_directories(tmp_path: Path) -> None:
    processes = [start("train.py", f"--outdir={tmp_path}", *TINY, "run.duration=1it") for _ in "ab"]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert len(list(tmp_path.iterdir())) == 2
    for folder in tmp_path.iterdir():
        assert final_state(folder)["trainer"]["seen"] == 16
