"""Training on poor machines, from the command line."""

import os
from pathlib import Path

import pytest

from tests import command
from tests.command import run
from tests.machines.conditions import small_disk

TINY = ("--config=configs/digits-tiny.yaml", "run.duration=32img", "sampler.steps=2")
FAULTS = Path(__file__).parent / "faults"


def test_a_file_system_that_knows_little_and_a_user_without_a_home_can_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DRIFTLESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delitem(command.ENVIRONMENT, name, raising=False)
    path = os.pathsep.join([str(FAULTS), command.ENVIRONMENT["PYTHONPATH"]])
    monkeypatch.setitem(command.ENVIRONMENT, "PYTHONPATH", path)
    monkeypatch.setitem(command.ENVIRONMENT, "TMPDIR", str(tmp_path))
    faults = "home:,flock:ENOSYS,fsync_folder:EINVAL,chmod:EPERM,utime:EPERM"
    monkeypatch.setitem(command.ENVIRONMENT, "FAULTS", faults)
    done = run("train.py", f"--outdir={tmp_path / 'out'}", *TINY)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 3  # no home, no locks there, no locks in the run directory
    assert "Traceback" not in done.stderr
    kept = tmp_path / f"driftless-{os.geteuid()}" / "datasets"
    assert len(list(kept.glob("digits-8x8-*.npy"))) == 1
    (folder,) = (tmp_path / "out").iterdir()
    assert (folder / "training-state-0000000032.pt").exists()


def test_a_disk_that_fills_up_at_the_start_of_a_run_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "64k"):
        (disk / "filler").write_bytes(bytes(56 * 1024))  # room for the config, not for a log
        done = run("train.py", f"--outdir={disk / 'out'}", *TINY)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line == "error: cannot write: No space left on device; make room"
