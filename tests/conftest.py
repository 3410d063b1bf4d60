"""Tests keep decoded data sets in a folder of their own."""

import os
import tempfile

os.environ.setdefault(
    "DRIFTLESS_CACHE", os.path.join(tempfile.gettempdir(), "driftless-test-cache")
)
