"""A process that is to end with its parent does, also where the system has no call for it."""

import signal
import subprocess
import sys

import pytest

from tests.command import ENVIRONMENT

FAMILY = """
import os, sys, time
from torch_utils.processes import die_with
sys.platform = sys.argv[1]
parent = os.getpid()
if os.fork() == 0:
    die_with(parent)
    print("ready", flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


@pytest.mark.parametrize("platform", sorted({sys.platform, "another"}))
def test_a_process_ends_when_its_parent_was_killed(platform: str) -> None:
    command = [sys.executable, "-c", FAMILY, platform]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)  # returns when nobody has the pipe any more


def test_a_process_whose_parent_has_ended_already_ends_at_once() -> None:
    code = "from torch_utils.processes import die_with; die_with(1 << 22); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (1, b"")
