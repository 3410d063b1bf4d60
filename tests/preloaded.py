"""Programs without their start: a process that has loaded PyTorch and Driftless, and forks.

An interpreter that imports PyTorch takes seconds, and the suite runs hundreds of programs. Here one
process has imported everything; for every program that is asked for it forks a child, which becomes
that program: streams, folder, environment and arguments of its own, and an ordinary end with its
exit code. What a program does before its imports is not seen this way: tests of that start real
interpreters. Run as `python -m tests.preloaded FD` by `Preloaded`.
"""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
_NUM_STREAMS = 3
_KEPT: list[types.ModuleType] = []


class Preloaded:
    """Runs programs in children of a process that has loaded what they import."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def run(
        self, script: Path, args: Sequence[str], *, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a script from the repository's root and wait for it.

        Raises:
            TimeoutExpired: it was still running, and has been killed.
        """
        command = [os.fspath(script), *args]
        with (
            open(os.devnull, encoding="utf-8") as nothing,
            tempfile.TemporaryFile("w+", encoding="utf-8") as output,
            tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        ):
            files = [nothing.fileno(), output.fileno(), errors.fileno()]
            request = {"argv": command, "cwd": os.fspath(ROOT), "env": dict(env)}
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            pid = self._answer(60)["pid"]
            try:
                code = self._answer(timeout)["code"]
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._answer(60)
                raise subprocess.TimeoutExpired(command, timeout) from None
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(command, code, output.read(), errors.read())

    def _answer(self, timeout: float) -> dict[str, int]:
        self._socket.settimeout(timeout)
        answer = self._socket.recv(_LONGEST)
        assert answer, "the preloaded process has ended"
        found: dict[str, int] = json.loads(answer)
        return found


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
    num = len(os.listdir("/proc/self/task"))
    assert num == 1, f"{num} threads"


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork for every request; returns the request in the child, None at the end in the parent."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, _LONGEST, _NUM_STREAMS)
        if not message:
            return None
        pid = os.fork()
        if pid == 0:
            channel.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            request: dict[str, Any] = json.loads(message)
            return request
        for file in files:
            os.close(file)
        channel.send(json.dumps({"pid": pid}).encode())
        _, status = os.waitpid(pid, 0)
        channel.send(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())


def _become(request: dict[str, Any]) -> None:
    """Be the program of a request, to its end."""
    script = request["argv"][0]
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    sys.path[0] = os.path.dirname(script)
    tempfile.tempdir = None
    module = types.ModuleType("__main__")
    module.__file__ = script
    _KEPT.append(sys.modules["__main__"])  # or its names would become None
    sys.modules["__main__"] = module
    exec(compile(Path(script).read_text(encoding="utf-8"), script, "exec"), module.__dict__)


if __name__ == "__main__":
    # Ctrl-C is for the tests; children get the ordinary handler back
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        asked = _serve(connection)
    if asked is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(asked)
