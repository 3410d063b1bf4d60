"""Locks: one holder, freed by every kind of end, known by name to those who wait."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import ENVIRONMENT
from tests.machines.conditions import unprivileged
from torch_utils import locks, notes
from torch_utils.locks import Busy, holding

fcntl = pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from torch_utils.locks import holding
with holding(Path(sys.argv[1]), "counts sheep"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextlib.contextmanager
def another_holder(path: Path, seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_lock_says_who_holds_it_and_is_free_when_he_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with another_holder(path) as process:
        expected = f"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(Busy, match=f"^{expected}$"), holding(path, "x", wait=False):
            pass
    with holding(path, "x", wait=False) as is_held:
        assert is_held
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.read_text() == ""


def test_waiting_tells_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "FIRST_NOTICE", 0.0)
    monkeypatch.setattr(locks, "NEXT_NOTICES", 0.3)
    with another_holder(tmp_path / "lock", 1.0) as process, holding(tmp_path / "lock", "x"):
        assert process.wait(10) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2  # at once, and now and then
    for line in lines:
        assert line.startswith(f"waiting for process {process.pid} on ")
        assert ", which counts sheep (" in line


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"pid": "x"}', "\0" * 9999, "[" * 4000, "\x1b[2J"]
)
def test_damaged_content_of_a_lock_does_no_harm(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lock"
    with open(path, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(content)
        other.flush()
        with pytest.raises(Busy, match=r"^another process$"), holding(path, "x", wait=False):
            pass
    with holding(path, "x") as is_held:
        assert is_held


def test_content_that_would_write_to_the_terminal_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": 7, "host": "\x1b[2Jx", "doing": "y"}))
    with open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=r"^process 7$"), holding(path, "x", wait=False):
            pass


def test_a_forked_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    pid = 0
    reader, writer = os.pipe()
    try:
        with holding(tmp_path / "lock", "x"):
            pid = os.fork()
            if pid == 0:
                os.write(writer, b"here")
                time.sleep(60)
                os._exit(0)
            assert os.read(reader, 4) == b"here"
        with holding(tmp_path / "lock", "x", wait=False) as is_held:
            assert is_held
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.mark.parametrize(
    "code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF]
)
def test_without_locks_work_goes_on_and_that_is_said_once(
    tmp_path: Path,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(notes, "_said", set())
    for _ in range(3):
        with holding(tmp_path / "lock", "x") as is_held:
            assert not is_held
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: the file system of {tmp_path} has no locks (")


def test_another_users_lock_file_can_be_locked(open_folder: Path) -> None:
    path = open_folder / "lock"
    path.touch(0o444)
    with unprivileged(), holding(path, "x") as is_held:
        assert is_held
        with pytest.raises(Busy, match="another process"), holding(path, "x", wait=False):
            pass


def test_a_lock_file_that_cannot_be_made_is_an_error(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with unprivileged(), pytest.raises(PermissionError), holding(open_folder / "lock", "x"):
        pass
