"""Kernels on disk: which files are damaged, and that nothing else is removed."""

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.machines.conditions import unprivileged
from torch_utils.kernel_cache import kept_folders, kernel_folder, remove_damaged
from torch_utils.locks import holding

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="it needs Linux and gcc"
)
KEY = "c" + "b3gsy" * 10 + "7"
# places of 16 bits in a library's header: size of a section's header, their number, that of names
SIZE, NUM, NAMES = 58, 60, 62


@pytest.fixture(scope="module")
def library() -> bytes:
    """A library as a linker wrote it; no other, since tools that change one move its parts."""
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        command = ["gcc", "-shared", "-o", file.name, "-x", "c", "-"]
        subprocess.run(command, input="int kernel(void) { return 1; }", text=True, check=True)
        return Path(file.name).read_bytes()


def kernel(folder: Path, content: bytes, ending: str = ".main.so", key: str = KEY) -> Path:
    """A file as the compiler names it."""
    path = folder / key[1:3] / (key + ending)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("share", [0, 0.003, 0.1, 0.5, 0.99999])
def test_a_library_that_was_cut_off_is_removed(
    library: bytes, share: float, tmp_path: Path
) -> None:
    path = kernel(tmp_path, library[: int(share * len(library))])
    assert remove_damaged(tmp_path) == [path]
    assert not path.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.95])
def test_a_library_with_a_hole_at_its_end_is_removed(
    library: bytes, share: float, tmp_path: Path
) -> None:
    num = int(share * len(library))
    path = kernel(tmp_path, library[:num] + bytes(len(library) - num))
    assert remove_damaged(tmp_path) == [path]


def test_a_library_whose_header_leads_nowhere_is_removed(library: bytes, tmp_path: Path) -> None:
    (num,) = struct.unpack_from("=H", library, NUM)
    for place, value in ((NAMES, num), (NAMES, 2**16 - 1), (NUM, 0), (SIZE, 0), (SIZE, 63)):
        damaged = bytearray(library)
        struct.pack_into("=H", damaged, place, value)
        path = kernel(tmp_path, bytes(damaged))
        assert remove_damaged(tmp_path) == [path], (place, value)
    # a table of one entry at the very end, too short for the entry's type
    damaged = bytearray(library)
    struct.pack_into("=Q", damaged, 40, len(library) - 4)
    struct.pack_into("=HHH", damaged, SIZE, 4, 1, 0)
    path = kernel(tmp_path, bytes(damaged))
    assert remove_damaged(tmp_path) == [path]


@pytest.mark.parametrize("ending", [".py", ".main.cpp"])
def test_empty_sources_are_removed(ending: str, tmp_path: Path) -> None:
    path = kernel(tmp_path, b"", ending)
    assert remove_damaged(tmp_path) == [path]
    assert not path.exists()


def test_what_is_whole_or_not_the_compilers_stays(library: bytes, tmp_path: Path) -> None:
    whole = [
        kernel(tmp_path, library),
        kernel(tmp_path, b"x = 1\n", ".py"),
        kernel(tmp_path, b"", ".main.so.load_ok"),
        kernel(tmp_path, b"", ".py", key="__init__"),
        kernel(tmp_path, b"", ".so", key="short"),
    ]
    others = tmp_path / "package" / f"{KEY}.so"
    others.parent.mkdir()
    others.touch()
    misplaced = tmp_path / "xx" / f"{KEY}.so"
    misplaced.parent.mkdir()
    misplaced.touch()
    assert remove_damaged(tmp_path) == []
    assert all(path.exists() for path in (*whole, others, misplaced))
    assert not (tmp_path / "locks").exists()


def test_a_library_that_is_being_linked_stays(library: bytes, tmp_path: Path) -> None:
    path = kernel(tmp_path, library[:4096])
    (tmp_path / "locks").mkdir()
    with holding(tmp_path / "locks" / f"{KEY}.lock", "links"):
        assert remove_damaged(tmp_path) == []
    assert remove_damaged(tmp_path) == [path]


def test_damage_that_cannot_be_removed_is_an_error(open_folder: Path) -> None:
    path = kernel(open_folder, b"")
    (open_folder / "locks").mkdir()
    (open_folder / "locks").chmod(0o777)
    path.parent.chmod(0o555)
    with unprivileged(), pytest.raises(PermissionError):
        remove_damaged(open_folder)
    path.parent.chmod(0o777)
    assert remove_damaged(open_folder) == [path]


def test_the_folders_are_those_of_the_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torch._inductor.runtime.runtime_utils import cache_dir

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    default = kernel_folder()
    assert default is not None
    assert str(default) == cache_dir()
    headers = default / "precompiled_headers"
    headers.mkdir()
    assert kept_folders() == [default]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "relative")
    found = kernel_folder()
    assert str(found) == cache_dir()
    assert kept_folders() == [found, headers]
    monkeypatch.setenv("TRITON_CACHE_DIR", "elsewhere")
    assert kept_folders() == [found, headers, tmp_path / "elsewhere"]
    headers.rmdir()
    monkeypatch.setenv("TRITON_CACHE_DIR", "relative/triton/0")
    assert kept_folders() == [found]


@pytest.mark.parametrize("error", [KeyError("uid not found: 1234"), OSError(2), ImportError("pwd")])
def test_a_user_without_a_name_has_folders_that_are_given_alone(
    error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unknown() -> str:
        raise error

    monkeypatch.setattr("torch._inductor.runtime.runtime_utils.default_cache_dir", unknown)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert kernel_folder() is None
    assert kept_folders() == []
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert kernel_folder() == tmp_path
    assert kept_folders() == [tmp_path]
