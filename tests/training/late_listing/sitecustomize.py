"""A file system that shows new files late: rank 1 sees a training state some time after asking.

For a process that has this folder on its PYTHONPATH.
"""

import errno
import os
import time

if os.environ.get("RANK") == "1":
    _stat, _listdir = os.stat, os.listdir
    _first_asked: dict[str, float] = {}

    def _is_hidden(path: object) -> bool:
        if "training-state-" not in str(path):
            return False
        asked = _first_asked.setdefault(os.path.basename(str(path)), time.monotonic())
        return time.monotonic() < asked + 2

    def stat(path, *args, **kwargs):
        """As os.stat, without what is hidden."""
        if _is_hidden(path):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return _stat(path, *args, **kwargs)

    def listdir(path="."):
        """As os.listdir, without what is hidden."""
        return [name for name in _listdir(path) if not _is_hidden(name)]

    os.stat, os.listdir = stat, listdir
