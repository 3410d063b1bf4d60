"""Programs without their start: a process that has loaded PyTorch and Driftless, and forks.

An interpreter that imports PyTorch takes seconds, and the suite runs hundreds of programs. Here one
process has imported everything; for every program that is asked for it forks a child, which becomes
that program: streams, folder, environment and arguments of its own, and an ordinary end with its
exit code. Several processes of one run are forks of such a child (tests/launching.py). What a
program does before its imports is not seen this way: tests of that start real interpreters. Run as
`python -m tests.preloaded FD` by `Preloaded`.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tests.launching import launch

ROOT = Path(__file__).parents[1]
_SCRIPTS = ("driftless", "train", "generate", "fid", "dataset_tool", "snapshot_tool")
_PACKAGES = (
    *("diffusion", "networks", "losses", "samplers", "models", "importers", "metrics", "data"),
    *("generation", "scoring", "torch_utils", "training"),
)
_OTHERS = (
    *("PIL.Image", "safetensors.torch", "torch.fx.experimental.symbolic_shapes", "torch._dynamo"),
    *("torch.distributed", "torch.utils.tensorboard", "tqdm.auto"),
)
_LONGEST = 1 << 20  # bytes of a request
_NUM_FILES = 4  # input, output, errors, and where the end is told
_KEPT: list[types.ModuleType] = []


@dataclass(frozen=True)
class Wanted:
    """A program that is asked for.

    Attributes:
        words: its script and its arguments.
        env: its environment.
        processes: how many processes of one run; 0 for a program without a launcher.
        site: a file that each process runs before the script, if any.
    """

    words: Sequence[str]
    env: Mapping[str, str]
    processes: int = 0
    site: str | None = None


class Program:
    """A program that runs, as of `subprocess.Popen` with its output in one pipe or in files.

    Attributes:
        args: its words.
        pid: its process number.
        returncode: None while it runs.
        stdout: the end of the pipe to read from; None without one.
    """

    def __init__(self, args: Sequence[str], status: socket.socket, stdout: TextIO | None) -> None:
        self.args = list(args)
        self.stdout = stdout
        self.returncode: int | None = None
        self._status = status
        self.pid = self._answer(60)["pid"]

    def _answer(self, timeout: float | None) -> dict[str, int]:
        self._status.settimeout(timeout)
        answer = self._status.recv(_LONGEST)
        assert answer, "the preloaded process has ended"
        found: dict[str, int] = json.loads(answer)
        return found

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code, or minus the signal that ended it.

        Raises:
            TimeoutExpired: it runs on.
        """
        if self.returncode is None:
            try:
                self.returncode = self._answer(timeout)["code"]
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._status.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Read the output to its end and wait; what takes longer than the timeout is killed."""
        assert self.stdout is not None, "its output goes into files"
        killer = threading.Timer(timeout, self.kill)
        killer.start()
        with self.stdout:
            output = self.stdout.read()
        self.wait()
        killer.cancel()
        return output, None


class Preloaded:
    """Starts programs as children of a process that has loaded what they import."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def start(self, wanted: Wanted) -> Program:
        """Start a program in the repository's root, its output and errors in one pipe."""
        reading, writing = os.pipe()
        try:
            return self._start(wanted, (writing, writing), open(reading, encoding="utf-8"))
        finally:
            os.close(writing)

    def run(self, wanted: Wanted, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a program in the repository's root and wait for it.

        Raises:
            TimeoutExpired: it was still running, and has been ended.
        """
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as output,
            tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        ):
            program = self._start(wanted, (output.fileno(), errors.fileno()), None)
            try:
                code = program.wait(timeout)
            except subprocess.TimeoutExpired:
                # a launcher that is killed leaves its processes behind
                program.send_signal(signal.SIGTERM if wanted.processes else signal.SIGKILL)
                program.wait()
                raise
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(program.args, code, output.read(), errors.read())

    def _start(self, wanted: Wanted, files: tuple[int, int], stdout: TextIO | None) -> Program:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(os.devnull, encoding="utf-8") as nothing:
            numbers = [nothing.fileno(), *files, theirs.fileno()]
            socket.send_fds(self._socket, [json.dumps(asdict(wanted)).encode()], numbers)
        return Program(wanted.words, ours, stdout)


def _load() -> None:
    """Import all that our programs do, without starting a thread: a child would not have it."""
    inner = [
        found.name
        for name in _PACKAGES
        for found in pkgutil.walk_packages([os.fspath(ROOT / name)], f"{name}.")
    ]
    for name in (*_SCRIPTS, *_PACKAGES, *inner, *_OTHERS):
        with contextlib.suppress(ImportError):  # an optional library
            importlib.import_module(name)
    sys.modules["PIL.Image"].init()
    gc.collect()
    gc.freeze()  # or a child that looks for garbage, as at its end, would copy all this memory
    num = len(os.listdir("/proc/self/task"))
    assert num == 1, f"{num} threads"


def _serve(channel: socket.socket) -> Wanted | None:
    """Fork for every request; returns the request in the child, None at the end in the parent.

    Between the two is a process that waits for the child and tells how it ended.
    """
    while True:
        message, files, _, _ = socket.recv_fds(channel, _LONGEST, _NUM_FILES)
        if not message:
            return None
        if os.fork() == 0:
            channel.close()
            return _watched(message, files)
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watched(message: bytes, files: Sequence[int]) -> Wanted:
    """Fork once more: returns in the child, and stays to report its end."""
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files[:-1]):
            os.dup2(file, number)
        for file in files:
            os.close(file)
        return Wanted(**json.loads(message))
    for file in files[:-1]:
        os.close(file)
    with socket.socket(fileno=files[-1]) as status, contextlib.suppress(OSError):
        status.send(json.dumps({"pid": pid}).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        status.send(json.dumps({"code": code}).encode())
    os._exit(0)


def _become(wanted: Wanted) -> None:
    """Be the program that is wanted, to its end."""
    os.environ.clear()
    os.environ.update(wanted.env)
    os.chdir(ROOT)
    tempfile.tempdir = None
    if wanted.processes:
        launch(wanted.processes)
    if wanted.site is not None:
        _execute(wanted.site, {"__name__": "site"})
    script = wanted.words[0]
    sys.argv = list(wanted.words)
    sys.path[0] = os.path.dirname(script)
    module = types.ModuleType("__main__")
    module.__file__ = script
    _KEPT.append(sys.modules["__main__"])  # or its names would become None
    sys.modules["__main__"] = module
    _execute(script, module.__dict__)


def _execute(script: str, names: dict[str, Any]) -> None:
    exec(compile(Path(script).read_text(encoding="utf-8"), script, "exec"), names)


if __name__ == "__main__":
    # Ctrl-C is for the tests; children get the ordinary handler back
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        asked = _serve(connection)
    if asked is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(asked)
