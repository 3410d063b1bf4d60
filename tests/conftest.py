"""Tests keep decoded data sets in a folder of their own, and no example has a deadline."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault(
    "DRIFTLESS_CACHE", os.path.join(tempfile.gettempdir(), "driftless-test-cache")
)
settings.register_profile("driftless", deadline=None)  # machines pause
settings.load_profile("driftless")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may reach and write, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="driftless-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
