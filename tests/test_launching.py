"""Forks under a launcher of ours are to a program what torchrun's processes are."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.command import ROOT, start, torchrun

SHOW = """
import json, os
shown = [dict(os.environ), os.getsid(0) == os.getpid(), os.getcwd()]
os.write(1, (json.dumps(shown) + "\\n").encode())  # whole, beside that of the other one
"""
OWN = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"}  # of one launch
# for PyTorch's own reports of errors, and of Python's start
NOT_OURS = {"TORCHELASTIC_ERROR_FILE", "LC_CTYPE", "TORCHELASTIC_WORKER_IDENTITY"}


def shown(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """What the processes printed, in the order of their ranks."""
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted(found, key=lambda each: each[0]["RANK"])


def test_forks_have_the_variables_and_the_sessions_of_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    forks, real = (shown(torchrun(2, str(script), real=real)) for real in (False, True))
    assert len(forks) == len(real) == 2
    for (ours, *rest), (theirs, *their_rest) in zip(forks, real, strict=True):
        assert rest == their_rest == [True, str(ROOT)]
        assert ours.keys() - NOT_OURS == theirs.keys() - NOT_OURS
        for name in theirs.keys() - NOT_OURS - OWN:
            assert ours[name] == theirs[name], name


WAIT = """
import os, signal, sys, time
from pathlib import Path
rank = os.environ["RANK"]

def note(number, frame):
    os.write(1, f"{rank} got {number:d}\\n".encode())  # whole, beside that of the other one
    sys.exit(3)

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, note)
ready = Path(sys.argv[1])
(ready / rank).touch()
while len(list(ready.iterdir())) < 2:
    time.sleep(0.01)
if rank == sys.argv[2]:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


def test_processes_end_together(tmp_path: Path) -> None:
    """One that fails takes the others with it, and what the launcher gets goes on to all."""
    script, ready = tmp_path / "wait.py", tmp_path / "ready"
    script.write_text(WAIT)
    ready.mkdir()
    done = torchrun(2, str(script), ready, 1)
    assert (done.returncode, done.stdout) == (1, f"0 got {signal.SIGTERM.value}\n"), done.stderr
    for path in ready.iterdir():
        path.unlink()
    launcher = start(str(script), ready, "none", processes=2)
    while len(list(ready.iterdir())) < 2:
        time.sleep(0.01)
    launcher.send_signal(signal.SIGHUP)
    output, _ = launcher.communicate()
    assert launcher.returncode == 1
    assert sorted(output.splitlines()) == [f"{n} got {signal.SIGHUP.value}" for n in range(2)]
