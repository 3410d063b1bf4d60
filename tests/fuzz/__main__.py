"""Damage files of every kind at random: each must be read, or refused in one line.

Run as `python -m tests.fuzz NUM FIRST KIND...`: so many cases of each kind, from that seed on; in a
process of its own, with bounded memory, and a bounded time for a case.
"""

import contextlib
import io
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.fuzz.damage import CANARY, damaged
from tests.fuzz.subjects import SUBJECTS, Subject
from torch_utils.errors import Failure, UserError
from torch_utils.text import printable

MEMORY = 2 * 2**30  # that the process may take beyond its start
SECONDS = 20
CANARIES = (CANARY, "CANARY_OF_THE_SOURCE")  # files that what is in the files would write


def outcome(subject: Subject, parts: dict[str, bytes], seed: int, folder: Path) -> str:
    """Damage a part, read the file, and say how it ended."""
    random = np.random.default_rng(seed)
    name = list(parts)[random.integers(len(parts))]
    files = subject.pack(parts | {name: damaged(parts[name], random)})
    for file, content in files.items():
        (folder / file).write_bytes(content)
    message = None
    try:
        subject.read(folder / next(iter(files)))
    except (UserError, Failure) as error:
        message = str(error)
    assert not any(map(os.path.exists, CANARIES)), "something in the file ran"
    if message is None:
        return "read"
    assert message, "an empty message"
    assert message == printable(message), message
    return "refused"


def run(kind: str, num: int, first: int) -> dict[str, int]:
    """The cases of one kind, counted by how they ended."""
    subject, counts = SUBJECTS[kind], {"read": 0, "refused": 0}
    parts = subject.parts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in subject.pack(parts).items():
            (folder / file).write_bytes(content)
        subject.read(folder / next(iter(subject.pack(parts))))  # sound, it is read
        for seed in range(first, first + num):
            if hasattr(signal, "alarm"):
                signal.alarm(SECONDS)  # ends the process if a case hangs
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    counts[outcome(subject, parts, seed, folder)] += 1
            except BaseException as error:
                raise AssertionError(f"{kind}, seed {seed}: {type(error).__name__}") from error
    return counts


def main(num: int, first: int, kinds: list[str]) -> None:
    """Print, for each kind, how many cases ended how."""
    import torch  # noqa: F401  (its own memory is not that of a case)

    if sys.platform == "linux":
        import resource

        status = Path("/proc/self/status").read_text()
        used = int(status.partition("VmData:")[2].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, used + MEMORY))
    for kind in kinds:
        counts = run(kind, num, first)
        print(kind, counts["read"], counts["refused"], flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(SUBJECTS))
