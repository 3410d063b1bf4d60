"""Files that come with Driftless, the recipes and the digits, by the same name in every folder.

They lie beside our packages, in a checkout as in an installation.
"""

import os
from pathlib import Path

FOLDERS = ("assets", "configs")


def shipped(path: str | os.PathLike[str]) -> Path:
    """The file at a path; of a name such as configs/digits.yaml with no file there, our own.

    Args:
        path: as the user gave it, relative to the working folder.
    """
    given = Path(path)
    ours = Path(__file__).resolve().parents[1] / given
    is_ours = given.parts[:1] in [(name,) for name in FOLDERS] and ours.is_file()
    return ours if is_ours and not given.exists() else given
