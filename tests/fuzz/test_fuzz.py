"""Damaged files of every kind end in a correct read or one line, in bounded time and memory."""

import importlib.util

import pytest

from tests.command import run
from tests.fuzz.subjects import SUBJECTS

IMPORTED = [
    "edm",
    "edm-structure",
    "edm-state",
    "checkpoint",
    "checkpoint-training",
]  # what strangers made, and users download
KINDS = [k for k in SUBJECTS if k != "lmdb" or importlib.util.find_spec("lmdb") is not None]


def fuzz(num: int, first: int, kinds: list[str]) -> None:
    done = run("tests/fuzz/__main__.py", num, first, *kinds)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [kind for kind, *_ in lines] == kinds
    for kind, read, refused in lines:
        assert int(read) + int(refused) == num, kind
        assert int(refused) > 0, kind


def test_a_few_damaged_files_of_every_kind_never_crash_hang_or_exhaust() -> None:
    fuzz(12, 0, KINDS)


@pytest.mark.parametrize("kind", IMPORTED)
def test_hundreds_of_damaged_checkpoints_never_run_crash_or_exhaust(kind: str) -> None:
    fuzz(200, 100, [kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files_never_crash_hang_or_exhaust(kind: str) -> None:
    for first in range(1000, 1200 if kind == "lmdb" else 4000, 200):
        fuzz(200, first, [kind])
