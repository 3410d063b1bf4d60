"""Tests keep decoded data sets in a folder of their own, and no example has a deadline."""

import os
import tempfile

from hypothesis import settings

os.environ.setdefault(
    "DRIFTLESS_CACHE", os.path.join(tempfile.gettempdir(), "driftless-test-cache")
)
settings.register_profile("driftless", deadline=None)  # machines pause
settings.load_profile("driftless")
