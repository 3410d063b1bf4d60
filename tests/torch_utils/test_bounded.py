"""Files are read whole, whatever their size is said to be, and never beyond the bound."""

import sys
from pathlib import Path

import pytest

from torch_utils.bounded import read_file
from torch_utils.errors import UserError


def test_a_file_up_to_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"", b"x", b"xyz"):
        path.write_bytes(content)
        assert read_file(path, 3) == content
    path.write_bytes(b"four")
    with pytest.raises(UserError, match="the file has 4 bytes, more than 3"):
        read_file(path, 3, "the file")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_file_with_more_than_its_size_is_read_up_to_the_bound() -> None:
    """Files of /proc have the size 0, as far as the system tells."""
    path = Path("/proc/self/cmdline")
    content = path.read_bytes()
    assert path.stat().st_size == 0
    assert read_file(path, len(content)) == content
    with pytest.raises(UserError, match=f"more than {len(content) - 1}"):
        read_file(path, len(content) - 1)
