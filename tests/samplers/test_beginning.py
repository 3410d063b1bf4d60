"""What is there already: kept if it is whole and of the same request, never lost or mixed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from samplers.beginning import Begun, begun
from samplers.destination import Destination, destination_of
from samplers.outputs import PictureWriter, check_outputs, picture_name
from samplers.records import NAME, difference
from torch_utils.distributed import World
from torch_utils.errors import Failure, UserError

SHAPE = (3, 4, 6)
WORLD = World(0, 1, torch.device("cpu"))
REQUEST = {"network": "a", "sampler": {"name": "heun", "steps": 18}, "subdirs": False}
OTHER = {**REQUEST, "sampler": {"name": "heun", "steps": 40}}
FORMS = ("", ".zip", ".npz")


def picture(seed: int, kind: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Noise that depends on both."""
    return np.random.default_rng((seed, kind)).integers(0, 256, shape, dtype=np.uint8)


def names_of(seeds: Sequence[int]) -> list[str]:
    return [picture_name(seed, "", subdirs=False) for seed in seeds]


def command(
    where: Path,
    seeds: Sequence[int],
    request: dict[str, object] = REQUEST,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    lost: int | None = None,
) -> Begun:
    """What generate.py does with pictures of the request.

    It may be killed before it packs, and the image of a seed may be lost: not finite.
    """
    destination, names = destination_of(str(where)), names_of(seeds)
    kind = 0 if request == REQUEST else 1
    check_outputs(str(where), None, 3)
    with begun(destination, names, SHAPE, lambda: request, world=WORLD, resume=resume) as found:
        todo = found.missing if stop_after is None else found.missing[:stop_after]
        with PictureWriter(destination) as writer:
            for position in todo:
                if seeds[position] == lost:
                    writer.write_when_there(names[position], lambda: None)
                    continue
                writer.write(names[position], picture(seeds[position], kind))
        is_made = destination.is_packed and any(destination.file(name).exists() for name in names)
        if is_made and stop_after is None:
            destination.pack(
                *(names, SHAPE, found.request),
                keep_old=resume,
                classes={name: int(name) % 3 for name in names},
                class_names=["ant", "bee", "cow"],
                advance=lambda num: None,
            )
            destination.remove_parts(names)
    return found


def stored(where: Path) -> dict[str, bytes]:
    """Content by name of the images in a folder or file."""
    destination = destination_of(str(where))
    packed = destination.packed()
    if packed is not None:
        return {name: packed.read(name) for name in packed.names}
    names = sorted(path.name.removesuffix(".png") for path in where.glob("*.png"))
    return {name: destination.file(name).read_bytes() for name in names}


def files_at(where: Path) -> list[Path]:
    """The files beside an output, and in it."""
    return sorted(path for path in where.parent.rglob("*") if path.is_file())


def pixels(where: Path) -> dict[str, bytes]:
    form = destination_of(str(where)).form
    return {name: form.decoded(one, SHAPE).tobytes() for name, one in stored(where).items()}


@pytest.fixture(params=FORMS, ids=["folder", "zip", "npz"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / f"out{request.param}"
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_exactly_the_missing_images_are_made(out: Path) -> None:
    command(out, range(10), stop_after=4)
    destination = destination_of(str(out))
    there = [destination.file(name) for name in names_of(range(4))]
    before = [path.stat().st_mtime_ns for path in there]
    found = command(out, range(10), resume=True, stop_after=3)
    assert (found.missing, found.warnings) == ([4, 5, 6, 7, 8, 9], [])
    assert [path.stat().st_mtime_ns for path in there] == before
    assert command(out, range(10), resume=True).missing == [7, 8, 9]
    assert pixels(out) == {f"{seed:06d}": picture(seed).tobytes() for seed in range(10)}
    whole = out.with_name(f"whole{out.suffix}")
    command(whole, range(10))
    assert stored(out) == stored(whole)
    if out.is_file():
        assert out.read_bytes() == whole.read_bytes()
        assert sorted(os.listdir(out.parent)) == sorted([out.name, whole.name])
    stamps = {path: path.stat().st_mtime_ns for path in files_at(out)}
    assert command(out, range(10), resume=True).missing == []
    assert {path: path.stat().st_mtime_ns for path in files_at(out)} == stamps


def test_what_is_finished_gets_more_images(out: Path) -> None:
    command(out, range(5, 8))
    assert command(out, range(10), resume=True).missing == [0, 1, 2, 3, 4, 8, 9]
    assert command(out, [20, 3], resume=True).missing == [0]
    expected = {f"{seed:06d}": picture(seed).tobytes() for seed in (*range(10), 20)}
    assert pixels(out) == expected
    if out.is_file():
        contents = destination_of(str(out)).packed()
        assert contents is not None
        assert contents.seeds == [*range(3), *range(4, 10), 20, 3]
        assert contents.known_classes == [seed % 3 for seed in contents.seeds]


@pytest.mark.parametrize("form", FORMS, ids=["folder", "zip", "npz"])
def test_files_that_are_not_whole_or_of_another_shape_are_made_anew(
    form: str, tmp_path: Path
) -> None:
    """A file may be cut off at any byte; of a PNG, also a flipped byte is noticed."""
    destination = destination_of(str(tmp_path / f"out{form}"))
    path = destination.file("000000")
    path.parent.mkdir(exist_ok=True)
    content = destination.form.encoded(picture(0))
    path.write_bytes(content)
    assert destination.form.is_whole(path, SHAPE)
    for shape in ((3, 6, 4), (3, 4, 7), (1, 4, 6)):
        assert not destination.form.is_whole(path, shape)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not destination.form.is_whole(path, SHAPE), length
    if form != ".npz":
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
            assert not destination.form.is_whole(path, SHAPE), place
    path.unlink()
    assert not destination.form.is_whole(path, SHAPE)


def test_a_cut_file_is_made_anew_and_others_are_not(out: Path) -> None:
    command(out, range(4), stop_after=4)
    path = destination_of(str(out)).file("000002")
    path.write_bytes(path.read_bytes()[:-7])
    assert command(out, range(4), resume=True).missing == [2]
    assert pixels(out)["000002"] == picture(2).tobytes()


def test_another_request_is_refused_and_nothing_is_changed(out: Path) -> None:
    command(out, range(3), stop_after=2)
    before = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="sampler: steps was 18, now it is 40; give the same"):
        command(out, range(3), OTHER, resume=True)
    command(out, range(3), resume=True)
    with pytest.raises(UserError, match=f"--resume: the images in {out} were made otherwise"):
        command(out, range(6), OTHER, resume=True)
    assert all(path.read_bytes() == content for path, content in before.items() if path.exists())


def test_without_resume_all_are_made_anew_and_no_other_is_lost(out: Path) -> None:
    command(out, range(4))
    assert command(out, range(4), OTHER).missing == [0, 1, 2, 3]
    assert pixels(out) == {f"{seed:06d}": picture(seed, 1).tobytes() for seed in range(4)}
    command(out, range(6), OTHER)
    if out.is_file():
        with pytest.raises(UserError, match=r"holds 3 other images \(000003, 000004, 000005\)"):
            command(out, range(3), OTHER)
        assert sorted(os.listdir(out.parent)) == [out.name]
        half = out.with_name(f"half{out.suffix}")
        command(half, range(4), stop_after=4)
        with pytest.raises(UserError, match="is unfinished, with 1 other images"):
            command(half, range(3))
        command(half, range(4), OTHER)
        assert pixels(half)["000003"] == picture(3, 1).tobytes()
    else:
        (line,) = command(out, range(3), OTHER).warnings
        assert "holds other PNGs, 3 of them, such as 000003.png" in line


@pytest.mark.parametrize("form", [".zip", ".npz"])
def test_fewer_images_of_an_unfinished_file_do_not_lose_the_others(
    form: str, tmp_path: Path
) -> None:
    out = tmp_path / f"out{form}"
    command(out, range(8), stop_after=6)
    found = command(out, range(3), resume=True)
    assert found.missing == []
    (line,) = found.warnings
    assert line.startswith("3 other images (000003, 000004, 000005) wait in ")
    command(out, range(2, 4), resume=True)
    found = command(out, range(8), resume=True)
    assert (found.missing, found.warnings) == ([6, 7], [])
    assert pixels(out) == {f"{seed:06d}": picture(seed).tobytes() for seed in range(8)}
    assert os.listdir(tmp_path) == [out.name]


@pytest.mark.parametrize("form", [".zip", ".npz"])
def test_replacing_a_file_is_taken_up_again(form: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{form}"
    command(out, range(4))
    command(out, range(5), OTHER, stop_after=2)
    with pytest.raises(UserError, match="holds 1 other images"):
        command(out, range(3), OTHER, resume=True)
    assert command(out, range(5), OTHER, resume=True, lost=3).missing == [2, 3, 4]
    made = {f"{seed:06d}": picture(seed, 1).tobytes() for seed in (0, 1, 2, 4)}
    assert pixels(out) == made


@pytest.mark.parametrize("form", [".zip", ".npz"])
def test_parts_that_are_made_anew_have_a_record(form: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{form}"
    for _ in range(2):
        command(out, range(4), stop_after=2)
    with pytest.raises(UserError, match="was 18, now it is 40"):
        command(out, range(4), OTHER, resume=True)
    assert command(out, range(4), resume=True).warnings == []


def test_no_old_image_takes_the_place_of_one_that_is_lost(out: Path) -> None:
    command(out, range(3))
    command(out, range(3), OTHER, lost=1)
    assert list(pixels(out)) == ["000000", "000002"]
    assert command(out, range(3), OTHER, resume=True).missing == [1]
    assert pixels(out)["000001"] == picture(1, 1).tobytes()


def test_images_of_an_earlier_request_in_a_folder_are_not_taken_for_ones_of_a_later(
    tmp_path: Path,
) -> None:
    command(tmp_path, range(6))
    command(tmp_path, range(4), OTHER, stop_after=2)
    found = command(tmp_path, range(6), OTHER, resume=True)
    assert found.missing == [2, 3, 4, 5]
    (line,) = found.warnings
    assert line.startswith(f"4 images in {tmp_path} are of another request, such as 000002.png")
    assert pixels(tmp_path) == {f"{seed:06d}": picture(seed, 1).tobytes() for seed in range(6)}
    assert command(tmp_path, range(6), OTHER, resume=True).missing == []


def test_images_without_a_record_are_kept_with_a_warning(tmp_path: Path) -> None:
    command(tmp_path, range(3))
    (tmp_path / NAME).unlink()
    found = command(tmp_path, range(5), resume=True)
    assert found.missing == [3, 4]
    (line,) = found.warnings
    assert "those that are there are taken for images of this request" in line
    with pytest.raises(UserError, match="was 18"):
        command(tmp_path, range(5), OTHER, resume=True)


@pytest.mark.parametrize("form", [".zip", ".npz"])
def test_a_file_that_is_not_ours_is_left_alone(form: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{form}"
    for content in (b"text", b""):
        out.write_bytes(content)
        for resume in (False, True):
            with pytest.raises(UserError, match=r"that generate\.py wrote"):
                command(out, range(2), resume=resume)
        assert (out.read_bytes(), os.listdir(tmp_path)) == (content, [out.name])
    out.unlink()
    if form == ".npz":
        np.savez(out, np.zeros((2, 4, 6, 3), np.uint8))
        with pytest.raises(UserError, match=r"that generate\.py wrote"):
            command(out, range(2))


def test_a_zip_that_was_damaged_since_is_not_added_to(tmp_path: Path) -> None:
    out = tmp_path / "out.zip"
    command(out, range(3))
    content = bytearray(out.read_bytes())
    content[content.index(b"IDAT") + 9 + content.index(b"000001.png")] ^= 1
    out.write_bytes(content)
    with pytest.raises(Failure, match=f"{out} is damaged at 000001: its checksum is wrong"):
        command(out, range(5), resume=True)
    assert out.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == [".out.zip.parts", "out.zip"]


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    command(tmp_path, range(2))
    for content in ("{", "[]", '{"request": 3, "strangers": {}}', '{"request": {}}'):
        (tmp_path / NAME).write_text(content)
        with pytest.raises(UserError, match=f"{NAME} is damaged"):
            command(tmp_path, range(2), resume=True)


@pytest.mark.parametrize("form", [".zip", ".npz"])
def test_two_commands_do_not_write_one_file(form: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{form}"
    destination = destination_of(str(out))
    with begun(destination, names_of([0]), SHAPE, lambda: REQUEST, world=WORLD):
        with pytest.raises(UserError, match=f"{out} is being written by process {os.getpid()}"):
            command(out, range(2))
        assert destination.folder.is_dir()
    assert os.listdir(tmp_path) == []


def test_files_of_killed_writers_are_removed_if_their_images_are_made(out: Path) -> None:
    command(out, range(3), stop_after=1)
    folder: Destination = destination_of(str(out))
    suffix = folder.form.SUFFIX
    own, other = (folder.folder / f".00000{i}.tmp-12-34{suffix}" for i in (1, 7))
    for path in (own, other):
        path.touch()
    command(out, range(3), resume=True, stop_after=1)
    assert (own.exists(), other.exists()) == (False, True)
    other.unlink()


def test_what_differs_is_said_in_words() -> None:
    assert difference(REQUEST, {**REQUEST}) is None
    assert difference(REQUEST, {**REQUEST, "subdirs": True}) == "subdirs was off, now it is on"
    added = {**REQUEST, "labels": {"--class": "bee"}}
    assert difference({**REQUEST, "labels": {}}, added) == (
        "labels: --class was not given, now it is bee"
    )
    guided = {**REQUEST, "guidance network": "f" * 32}
    assert difference(guided, {**REQUEST, "guidance network": None}) == (
        f"guidance network was {'f' * 32}, now it is not given"
    )
