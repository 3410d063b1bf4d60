"""Running our command lines as users do: real processes, their output and exit code."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.preloaded import Preloaded, Program, Wanted

ROOT = Path(__file__).parents[1]
# two cores are shared by many small processes: more threads than cores would only spin
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LAUNCHER = ["-m", "torch.distributed.run", "--standalone"]


_TIMEOUT = 300  # seconds


@cache
def _preloaded() -> Preloaded:
    return Preloaded()


def _of_start() -> dict[str, str]:
    """The variables that act before a program's first line, as they are now."""
    acting = ("PYTHON", "LD_", "OMP_", "GOMP_", "MKL_")
    return {name: value for name, value in ENVIRONMENT.items() if name.startswith(acting)}


_OF_START = _of_start()


def run(script: str, *args: object, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of ours from the repository's root and wait for it; see tests/preloaded.py.

    Where a test changes what acts on an interpreter's start, it gets one of its own.

    Args:
        script: the script.
        args: its arguments.
        site: a file that the process runs first.
    """
    if site is None and _of_start() != _OF_START:
        return run_afresh(script, *args)
    return _preloaded().run(_wanted(script, args, site=site), _TIMEOUT)


def run_afresh(script: str, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a script of ours in an interpreter of its own, from its start.

    Args:
        script: the script.
        args: its arguments.
        options: of `subprocess.run`.
    """
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=_TIMEOUT,
        **options,
    )


def call(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a script of ours in this process: the same words and exit code, without the start."""
    output, errors = io.StringIO(), io.StringIO()
    command = importlib.import_module(script.removesuffix(".py")).main
    code: Any = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            command.main([str(arg) for arg in args], prog_name=script)
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(
        [script, *args], int(code or 0), output.getvalue(), errors.getvalue()
    )


def start(
    script: str, *args: object, processes: int = 0, site: Path | None = None, **variables: str
) -> Program:
    """Start a script of ours and return at once; see tests/preloaded.py.

    Args:
        script: the script.
        args: its arguments.
        processes: how many processes of one run, under a launcher; 0 for one without.
        site: a file that each process runs first.
        variables: of its environment, beside the usual ones.
    """
    return _preloaded().start(_wanted(script, args, variables, processes, site))


def torchrun(
    processes: int, script: str, *args: object, real: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script of ours in several processes on this machine.

    Args:
        processes: their number.
        script: the script.
        args: its arguments.
        real: start PyTorch's own launcher, and interpreters; else see tests/launching.py.
    """
    if not real and _of_start() == _OF_START:
        return _preloaded().run(_wanted(script, args, processes=processes), _TIMEOUT)
    command = [*LAUNCHER, f"--nproc_per_node={processes}", "--", str(ROOT / script)]
    return subprocess.run(
        [sys.executable, *command, *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=_TIMEOUT,
    )


def _wanted(
    script: str,
    args: Iterable[object],
    variables: Mapping[str, str] = MappingProxyType({}),
    processes: int = 0,
    site: Path | None = None,
) -> Wanted:
    words = [str(ROOT / script), *map(str, args)]
    first = None if site is None else str(site)
    return Wanted(words, {**ENVIRONMENT, **variables}, processes, first)


def forked_by(process: Program) -> list[int]:
    """Numbers of the processes that a launcher of `start` has forked."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The run ended with exit code 2 and one clear line that holds the words."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0], (word, lines[0])
