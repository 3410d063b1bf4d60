"""Files that come with Driftless, recipes and digits: found by the same name from every folder.

They lie beside our packages, both in a checkout and in an installation.
"""

import os
from pathlib import Path

FOLDERS = ("assets", "configs")


def shipped(path: str | os.PathLike[str]) -> Path:
    """The file at a path; if there is no file, our own for a name such as configs/digits.yaml.

    Args:
        path: as the user gave it, relative to the working folder.
    """
    given = Path(path)
    ours = Path(__file__).resolve().parents[1] / given
    is_ours = given.parts[:1] in [(name,) for name in FOLDERS] and ours.is_file()
    return ours if is_ours and not given.exists() else given
