"""What is there already of the images that are asked for, and what a command may overwrite.

`--resume` keeps the images that are whole and of the same request. Without it all are made anew,
in the place of old ones of the same names; no image of another name is ever lost.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from samplers.destination import Destination
from samplers.packed import Contents
from samplers.records import Record, Stamp, difference, read_record, write_record
from samplers.room import check_room, other_pictures
from torch_utils.distributed import World
from torch_utils.errors import UserError
from torch_utils.files import writing
from torch_utils.locks import Busy, holding
from torch_utils.progress import Progress
from torch_utils.text import some

_THREADS = 4
_TEMPORARY = re.compile(r"[.](.+)[.]tmp-\d+-\d+([.]\w+)")  # of torch_utils.files.replacing
_LOCK = ".lock"


@dataclass(frozen=True)
class Begun:
    """What there was before the work.

    Attributes:
        is_there: for each image, whether it is there and is kept.
        request: what all images are made of; empty on processes beside the main one.
        warnings: lines to print, on the main process.
    """

    is_there: list[bool]
    request: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def missing(self) -> list[int]:
        """Positions of the images to make."""
        return [position for position, is_there in enumerate(self.is_there) if not is_there]


@contextlib.contextmanager
def begun(
    destination: Destination,
    names: Sequence[str],
    shape: tuple[int, int, int],
    request: Callable[[], Mapping[str, Any]],
    *,
    world: World,
    resume: bool = False,
    has_grid: bool = False,
) -> Iterator[Begun]:
    """Find out what is to be made, and keep a record of it. All processes must call.

    The main process looks and decides, so that all agree. While the block runs, no other command
    can write the same zip or .npz.

    Args:
        destination: where images go; `samplers.outputs.check_outputs` has accepted it.
        names: of all images, as of `samplers.outputs.picture_name`.
        shape: (C, H, W) of an image.
        request: gives what they are made of; called on the main process.
        world: the processes.
        resume: keep images that are there.
        has_grid: a grid of them is written too.

    Raises:
        UserError: there is no room, or images that must not be lost or mixed with these.
    """
    with contextlib.ExitStack() as stack:
        found: Begun | None = None
        if world.is_main:
            asked = request()
            if destination.is_packed:
                stack.enter_context(_held(destination))
            found = _look(destination, names, shape, asked, resume=resume, has_grid=has_grid)
        world.meet()
        bits = None if found is None else np.packbits(found.is_there).tobytes().hex()
        told = np.frombuffer(bytes.fromhex(world.share(bits)), np.uint8)
        yield found or Begun(np.unpackbits(told, count=len(names)).astype(bool).tolist())


@contextlib.contextmanager
def _held(destination: Destination) -> Iterator[None]:
    """Make the folder of the parts and hold its lock; remove it again if it has no parts."""
    folder, stack = destination.folder, contextlib.ExitStack()
    with writing(folder):
        folder.mkdir(exist_ok=True)
        try:
            stack.enter_context(holding(folder / _LOCK, "writes the images", wait=False))
        except Busy as busy:
            raise UserError(
                f"{destination.outdir} is being written by {busy}: wait for it, or give another "
                "name"
            ) from None
    with stack:
        try:
            yield
        finally:
            if not _scan(folder, destination.form.SUFFIX).stamps:
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Scan:
    """Files in a folder, its sub-folders and theirs, which is as deep as images are put."""

    stamps: dict[str, Stamp]  # of images, by relative name
    temporaries: list[Path]  # of writers, perhaps killed ones


def _scan(folder: Path, suffix: str) -> _Scan:
    found = _Scan({}, [])
    for parent, folders, files in os.walk(folder):
        inner = Path(parent).relative_to(folder)
        if len(inner.parts) >= 2:
            folders.clear()
        for name in files:
            path = Path(parent, name)
            if _TEMPORARY.fullmatch(name):
                found.temporaries.append(path)
            elif name.endswith(suffix):
                with contextlib.suppress(OSError):  # gone meanwhile, or a broken link
                    status = path.stat()
                    stamp = status.st_size, status.st_mtime_ns
                    found.stamps[(inner / name).as_posix()] = stamp
    return found


def _look(
    destination: Destination,
    names: Sequence[str],
    shape: tuple[int, int, int],
    request: Mapping[str, Any],
    *,
    resume: bool,
    has_grid: bool,
) -> Begun:
    """What `begun` gives, on the main process."""
    suffix, folder, warnings = destination.form.SUFFIX, destination.folder, []
    old, scan, record = destination.packed(), _scan(folder, suffix), read_record(folder)
    files = [name + suffix for name in names]
    if resume:
        if old is not None and _is_replaced(old, record, request):
            _check_loss(destination, names, {}, old)
            old = None
        _check_request(destination, request, record, old)
        warnings += _waiting(destination, [*names, *(old.names if old else ())], scan.stamps)
        strangers = {} if record is None else record.strangers
        kept = {name for name in files if name in scan.stamps}
        if kept and record is None:
            warnings.append(
                f"nothing tells what the images in {folder} were made of: those that are there are "
                "taken for images of this request"
            )
        alien = {name for name in kept if scan.stamps[name] == strangers.get(name)}
        if alien:
            warnings.append(
                f"{len(alien):,} images in {destination.outdir} are of another request, such as "
                f"{min(alien)}: they are made anew"
            )
        is_there = _whole(destination, names, kept - alien, shape, old)
    else:
        _check_loss(destination, names, scan.stamps, old)
        is_there = [False] * len(names)
        is_same = record is not None and difference(record.request, request) is None
        strangers = record.strangers if record is not None and is_same else scan.stamps
    missing = {name for name, there in zip(files, is_there, strict=True) if not there}
    if not destination.is_packed:
        warnings += other_pictures(destination.outdir, scan.stamps, files)
    is_packed = destination.is_packed and bool(missing or scan.stamps)
    check_room(
        destination.parent,
        len(missing - scan.stamps.keys()),
        shape,
        num_packed=_num_packed(names, old) if is_packed else 0,
        num_in_grid=len(names) if has_grid else 0,
    )
    with writing(folder):
        if destination.is_packed and not resume:
            _empty(folder)  # with its record
            record, strangers = None, {}
        if resume:
            _drop(folder, scan.temporaries, missing)
        if record is None or record != Record(request, strangers):
            write_record(folder, Record(request, strangers))
    return Begun(is_there, request, warnings)


def _check_request(
    destination: Destination,
    request: Mapping[str, Any],
    record: Record | None,
    old: Contents | None,
) -> None:
    """Refuse to mix images of two requests.

    Raises:
        UserError: those that are there are of another one.
    """
    told = [old.request] if old is not None else []
    for before in [*told, *([record.request] if record is not None else [])]:
        if changed := difference(before, request):
            raise UserError(
                f"--resume: the images in {destination.outdir} were made otherwise: {changed}; "
                "give the same options, or another --outdir"
            )


def _is_replaced(old: Contents, record: Record | None, request: Mapping[str, Any]) -> bool:
    """Whether a command of this request was about to replace the file when it was ended."""
    is_begun = record is not None and difference(record.request, request) is None
    return is_begun and difference(old.request, request) is not None


def _waiting(destination: Destination, known: Sequence[str], parts: Iterable[str]) -> list[str]:
    """A warning if an ended command has made other images of a zip or .npz, which are kept."""
    others = _others(destination, known, parts)
    if not destination.is_packed or not others:
        return []
    return [
        f"{len(others):,} other images ({some(others, 3)}) wait in {destination.folder}: --resume "
        f"with their seeds puts them into {destination.outdir}"
    ]


def _others(destination: Destination, known: Sequence[str], parts: Iterable[str]) -> list[str]:
    """Names of the parts that are none of these images."""
    suffix = destination.form.SUFFIX
    return sorted({name.removesuffix(suffix) for name in parts} - set(known))


def _check_loss(
    destination: Destination, names: Sequence[str], parts: Iterable[str], old: Contents | None
) -> None:
    """Refuse to lose images of a zip or .npz that a folder would keep.

    Raises:
        UserError: the file, or what there is of an unfinished one, has others than these.
    """
    if not destination.is_packed:
        return
    held = sorted(set(() if old is None else old.names) - set(names))
    waiting = _others(destination, names, parts)
    for others, what in ((held, "holds"), (waiting, "is unfinished, with")):
        if others:
            raise UserError(
                f"{destination.outdir} {what} {len(others):,} other images ({some(others, 3)}), "
                "which would be lost: add --resume to keep them, or give another --outdir"
            )


def _whole(
    destination: Destination,
    names: Sequence[str],
    candidates: set[str],
    shape: tuple[int, int, int],
    old: Contents | None,
) -> list[bool]:
    """For each image, whether it is there, to its last byte and in this shape."""
    packed = set(old.names) if old is not None and old.shape == shape else set()

    def is_whole(name: str) -> bool:
        path = destination.file(name)
        is_file = name + destination.form.SUFFIX in candidates
        return name in packed or (is_file and destination.form.is_whole(path, shape))

    found = []
    with ThreadPoolExecutor(_THREADS) as pool, Progress(len(names), "checking") as bar:
        for is_there in pool.map(is_whole, names):
            found.append(is_there)
            bar.update()
    return found


def _num_packed(names: Sequence[str], old: Contents | None) -> int:
    """How many images the file will hold."""
    return len(set(names).union(() if old is None else old.names))


def _drop(folder: Path, temporaries: Sequence[Path], missing: set[str]) -> None:
    """Remove what killed writers of the missing images left; others may be at work."""
    for path in temporaries:
        match = _TEMPORARY.fullmatch(path.name)
        assert match is not None
        own = path.with_name(match[1] + match[2]).relative_to(folder).as_posix()
        if own in missing:
            path.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Remove the parts of an unfinished file, but not the lock."""
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
