"""Damaged zips end in a correct read or one line, in bounded time and memory."""

import subprocess
import sys

import pytest

from tests.command import ENVIRONMENT, ROOT


@pytest.mark.parametrize(
    ("num", "first"), [(200, 0), pytest.param(5000, 1000, marks=pytest.mark.slow)]
)
def test_flipped_bytes_in_a_zip_never_crash_hang_or_exhaust(num, first):
    command = [sys.executable, "-m", "tests.data.fuzz", str(num), str(first)]
    environment = ENVIRONMENT | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == num
    assert min(read, refused) > 0
