"""Flip random bytes in a small dataset zip: it must be read, or refused in one line.

Run as `python -m tests.data.fuzz CASES SEED`: in a process of its own, with bounded memory and
a bounded time a case.
"""

import contextlib
import io
import signal
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from data.check import problems_of
from data.convert import convert
from data.dataset import ImageDataset
from tests.data.files import encoded, index, random_image
from torch_utils.errors import UserError

MEMORY = 4 * 2**30  # of addresses, most of them libraries
SECONDS = 20


KINDS = ["png", "png", "bmp", "jpeg"]
NAMES = [f"{number}/{number}.{kind}" for number, kind in enumerate(KINDS)]


def members() -> dict[str, bytes]:
    """Four images and their labels."""
    files = {
        name: encoded(random_image(number), kind)
        for number, (name, kind) in enumerate(zip(NAMES, KINDS, strict=True))
    }
    labels = {name: number for number, name in enumerate(NAMES)}
    return files | {"dataset.json": index(labels, label_names=list("abcd"))}


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip, deflated so that damage also meets the decompressor."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """The content with one to eight bytes changed."""
    result = bytearray(content)
    for position in random.integers(len(result), size=random.integers(1, 9)):
        result[position] ^= int(random.integers(1, 256))
    return bytes(result)


def damaged(seed: int) -> bytes:
    """A zip with bytes changed in itself, or in a member before it was packed, or cut short."""
    random, files = np.random.default_rng(seed), members()
    if seed % 2:
        name = list(files)[random.integers(len(files))]
        return zipped(files | {name: flipped(files[name], random)})
    content = flipped(zipped(files), random)
    return content[: random.integers(len(content))] if seed % 16 == 0 else content


def outcome(path: Path, dest: Path) -> str:
    """Read, convert and check the zip; say how it ended."""
    assert not any("\n" in problem for problem in problems_of(str(path)))
    message = None
    try:
        ImageDataset(path, use_labels=True).load(progress=False)
        convert(str(path), str(dest), overwrite=True)
    except UserError as error:
        message = str(error)
    if message is None:
        return "read"
    assert message, "an empty message"
    assert "\n" not in message, message
    return "refused"


def main(num: int, first: int) -> None:
    """Run the cases and print how many ended how."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts = {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        path, dest = Path(folder, "s.zip"), Path(folder, "o.zip")
        for seed in range(first, first + num):
            path.write_bytes(damaged(seed))
            if hasattr(signal, "alarm"):
                signal.alarm(SECONDS)  # ends the process if a case hangs
            with contextlib.redirect_stderr(io.StringIO()):
                try:
                    counts[outcome(path, dest)] += 1
                except BaseException as error:
                    raise AssertionError(f"seed {seed}: {type(error).__name__}") from error
    print(counts["read"], counts["refused"])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
