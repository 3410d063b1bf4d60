"""Threads get defaults before PyTorch is loaded, and what the user has set stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_utils import threads

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import json, os, sys, click\n"
    "from torch_utils.command import Command\n"
    "@click.command(cls=Command)\n"
    "def main(): print(json.dumps(dict(os.environ)))\n"
)
RUN = PROGRAM + "main()\n"
# as torchrun: it has changed its own environment when it starts the process
LAUNCHER = (
    "import os, subprocess, sys\n"
    "os.environ.setdefault('OMP_NUM_THREADS', '1')\n"
    "os.environ |= {'LOCAL_WORLD_SIZE': sys.argv[2], 'TORCHELASTIC_RUN_ID': 'none'}\n"
    "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)\n"
)
on_linux = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="no /proc tells what a process started with"
)


def environment_in(code: str, *words: str, **variables: str) -> dict[str, str]:
    """The environment that a program of ours finds, started with some variables."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_program_lets_idle_threads_sleep_soon_and_changes_nothing_else() -> None:
    found = environment_in(RUN)
    assert found["GOMP_SPINCOUNT"] == str(threads.SPINS)
    assert "OMP_NUM_THREADS" not in found


@pytest.mark.parametrize(
    "chosen", [{"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "active"}], ids=lambda c: next(iter(c))
)
def test_how_the_user_lets_threads_wait_stays(chosen: dict[str, str]) -> None:
    found = environment_in(RUN, **chosen)
    names = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & found.keys()
    assert {name: found[name] for name in names} == chosen


def test_a_command_called_from_python_changes_no_environment() -> None:
    called = PROGRAM + "main.main([], standalone_mode=False)\n"
    assert "GOMP_SPINCOUNT" not in environment_in(called)
    loaded = PROGRAM + "sys.modules['torch'] = sys\nmain()\n"
    assert "GOMP_SPINCOUNT" not in environment_in(loaded)


@on_linux
def test_processes_of_torchrun_share_the_cores() -> None:
    cores = threads.num_cores()
    for processes in (1, 2, cores, cores + 1):
        found = environment_in(LAUNCHER, RUN, str(processes))
        assert found["OMP_NUM_THREADS"] == str(max(1, cores // processes))


@on_linux
@pytest.mark.parametrize(
    "chosen", [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3"}, {"MKL_NUM_THREADS": "1"}]
)
def test_the_number_of_threads_that_the_user_gave_to_torchrun_stays(chosen: dict[str, str]) -> None:
    found = environment_in(LAUNCHER, RUN, "1", **chosen)
    assert found["OMP_NUM_THREADS"] == chosen.get("OMP_NUM_THREADS", "1")
    assert found.get("MKL_NUM_THREADS") == chosen.get("MKL_NUM_THREADS")


@on_linux
def test_a_process_that_is_bound_to_few_cores_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"}
    monkeypatch.setattr(threads, "_started_with", lambda process: set())
    for bound, share in ((64, "16"), (8, "8"), (1, "1")):
        cores = {0: bound, 17: 64}
        monkeypatch.setattr(threads, "num_cores", lambda process=0, cores=cores: cores[process])
        assert threads.thread_share(environment, 17) == {"OMP_NUM_THREADS": share}


def test_without_the_launchers_environment_its_number_stays() -> None:
    environment = {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    nobody = 2**30  # larger than any process number
    assert threads.thread_share(environment, nobody) == {}


def test_the_variables_of_a_process_that_torchrun_did_not_start_stay() -> None:
    assert threads.thread_share({"OMP_NUM_THREADS": "1"}, os.getppid()) == {}
