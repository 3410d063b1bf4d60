"""Building the pretended CUDA libraries with gcc, and the variables that put them in place."""

import functools
import hashlib
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = HERE / "runtime"
# the driver's place is empty on a machine without one: its name makes ours the one that is found
DRIVER = "libcuda.so.1"
VARIABLE = "DRIFTLESS_FUSED"  # of networks.fused, which would import PyTorch
_FLAGS = ["-std=gnu11", "-shared", "-fPIC", "-O1", "-w", "-fno-strict-aliasing"]


@dataclass(frozen=True)
class Toolkit:
    """What the installed PyTorch was built with, as far as the libraries depend on it.

    Attributes:
        version: of CUDA as its interfaces return it, e.g. 13000.
        headers: folder of driver_types.h.
        compiler_name: file name of the run-time compiler's library, e.g. libnvrtc.so.13.
    """

    version: int
    headers: Path
    compiler_name: str


@functools.cache
def toolkit() -> Toolkit | str:
    """The CUDA of the installed PyTorch, without importing it; or why it cannot be pretended."""
    if sys.platform != "linux":
        return "a pretended GPU needs Linux"
    if shutil.which("gcc") is None:
        return "a pretended GPU needs gcc"
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    version = runpy.run_path(str(package / "version.py"))["cuda"]
    if version is None:
        return "a pretended GPU needs PyTorch's CUDA build"
    nvidia = package.parent / "nvidia"
    headers = sorted(nvidia.glob("*/include/driver_types.h"))
    compilers = sorted(nvidia.glob("*/lib/libnvrtc.so.*"))
    if not (headers and compilers):
        return f"a pretended GPU needs CUDA's headers and libraries as wheels, below {nvidia}"
    major, minor = (int(part) for part in version.split(".")[:2])
    return Toolkit(1000 * major + 10 * minor, headers[0].parent, compilers[0].name)


def why_not() -> str | None:
    """Why there can be no pretended GPU here; None if there can."""
    found = toolkit()
    return found if isinstance(found, str) else None


@functools.cache
def libraries() -> list[Path]:
    """The two libraries, built once for a state of their sources and kept in the temporary folder.

    Processes may build at the same time: each builds in a folder of its own, the first to finish
    gives it its name.
    """
    found = toolkit()
    assert isinstance(found, Toolkit), found
    names = [DRIVER, found.compiler_name]
    cache = Path(tempfile.gettempdir()) / f"driftless-pretended-gpu-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():  # not loaded into our processes
        raise PermissionError(f"{cache} belongs to somebody else")
    folder = cache / _key(found)
    if not folder.is_dir():
        being_built = Path(tempfile.mkdtemp(dir=cache, prefix="building-"))
        try:
            _compile(found, being_built)
            being_built.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(being_built, ignore_errors=True)
    return [folder / name for name in names]


def _key(found: Toolkit) -> str:
    """A hash of all that the libraries are made of."""
    content = hashlib.sha256(repr((found, _FLAGS)).encode())
    for path in sorted(SOURCES.rglob("*.[ch]")):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


def _compile(found: Toolkit, folder: Path) -> None:
    compiler = SOURCES / "nvrtc.c"
    runtime = sorted(path for path in SOURCES.glob("*.c") if path != compiler)
    # its users ask for symbols of this version
    versions = folder / "versions.map"
    versions.write_text(f"{found.compiler_name} {{ global: nvrtc*; local: *; }};\n")
    for name, sources, extra in (
        (DRIVER, runtime, ["-I", str(SOURCES / "include"), "-I", str(found.headers)]),
        (found.compiler_name, [compiler], [f"-Wl,--version-script={versions}"]),
    ):
        command = ["gcc", *_FLAGS, f"-DPRETENDED_VERSION={found.version}", f"-Wl,-soname,{name}"]
        output = ["-o", str(folder / name), *map(str, sources), "-lpthread", "-lrt"]
        subprocess.run([*command, *extra, *output], check=True)


def environment(
    devices: int = 1, *, computing: bool = False, memory: int | None = None
) -> dict[str, str]:
    """Variables for a process that is to see pretended GPUs.

    Args:
        devices: how many.
        computing: give device tensors the values that the CPU computes; else kernels do nothing
            and large blocks of memory stay untouched, so that networks of any size are cheap.
        memory: bytes of each; None for the 80 GiB of an H100.
    """
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(map(str, libraries())),
        "PYTHONPATH": os.pathsep.join([str(HERE / "site"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "TRITON_LIBCUDA_PATH": str(libraries()[0].parent),  # what its launcher is linked with
        "TORCH_CUDNN_V8_API_DISABLED": "1",  # of cuDNN's two interfaces the older is pretended
        "PRETEND_CUDA_DEVICES": str(devices),
        # fused kernels are tried first, which shows nothing where none computes
        **({"PRETEND_COMPUTING": "1"} if computing else {"PRETEND_LAZY": "1", VARIABLE: "0"}),
        **({} if memory is None else {"PRETEND_CUDA_MEMORY": str(memory)}),
    }
