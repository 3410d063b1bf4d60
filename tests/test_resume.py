"""generate.py into folders, zips and .npz files, killed and taken up again, by one process or two.

Images are computed one at a time where bytes are compared: the batch changes rounding.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import generate
from data.sources import open_source
from samplers.destination import destination_of
from samplers.records import NAME
from tests.command import assert_refused, call, run, start, torchrun
from tests.test_generate_cli import write_snapshot
from torch_utils.grids import is_grid

FORMS = ("", ".zip", ".npz")
SLOW_ZIP = [
    pytest.param("", id="folder"),
    pytest.param(".zip", id="zip", marks=pytest.mark.slow),
    pytest.param(".npz", id="npz"),
]
ONE_FORM = [
    pytest.param("", id="folder", marks=pytest.mark.slow),
    pytest.param(".zip", id="zip", marks=pytest.mark.slow),
    pytest.param(".npz", id="npz"),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of three classes, images 8x6."""
    return write_snapshot(
        tmp_path_factory.mktemp("models") / "cond.safetensors",
        3,
        steps=4,
        about={"label_dropout": 0.1},
    )


def make(network: Path, out: Path, *words: str) -> str:
    """What generate.py prints."""
    done = call("generate.py", f"--network={network}", f"--outdir={out}", "--batch=1", *words)
    assert done.returncode == 0, done.stderr
    assert "warning: " not in done.stderr
    return done.stdout


def content(out: Path) -> dict[str, bytes]:
    """Bytes by name: of the images of a folder, or of the file."""
    if out.is_file():
        return {"": out.read_bytes()}
    return {path.name: path.read_bytes() for path in out.rglob("*.png")}


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("form", SLOW_ZIP)
def test_what_was_killed_is_taken_up_and_equals_an_undisturbed_run(
    form: str, network: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / f"out{form}", tmp_path / f"whole{form}"
    words = (f"--network={network}", f"--outdir={out}", "--seeds=0-79", "--batch=1")
    process = start("generate.py", *words)
    parts = destination_of(str(out))
    while process.poll() is None and len(list(parts.folder.glob(f"0*{parts.form.SUFFIX}"))) < 5:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert out.exists() == (form == "")
    left = {path: path.stat() for path in parts.folder.glob(f"0*{parts.form.SUFFIX}")}
    assert 5 <= len(left) < 80
    printed = make(network, out, "--seeds=0-79", "--resume")
    assert printed.splitlines()[-1] == f"80 images in {out} ({len(left)} were there)"
    if form == "":
        assert all(path.stat().st_mtime_ns == before.st_mtime_ns for path, before in left.items())
        assert sorted(os.listdir(out)) == [NAME, *(f"{seed:06d}.png" for seed in range(80))]
    else:
        assert os.listdir(tmp_path) == [out.name]
    assert "were there" not in make(network, whole, "--seeds=0-79")
    assert content(out) == content(whole)


@pytest.mark.parametrize("form", ONE_FORM)
def test_two_processes_share_what_is_missing(form: str, network: Path, tmp_path: Path) -> None:
    """Each class has its images, and every name the image that one process gives it."""
    out, whole = tmp_path / f"out{form}", tmp_path / f"whole{form}"
    each = ("--class=each", "--subdirs", "--batch=1")
    make(network, out, "--seeds=1,999", *each)
    grid = tmp_path / "grid.png"
    done = torchrun(
        *(2, "generate.py", f"--network={network}", f"--outdir={out}", "--seeds=0-2,999-1001"),
        *(*each, "--resume", f"--grid={grid}"),
        real=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        f"grid: {grid}",
        "classes: ant 6, bee 6, cow 6",
        f"18 images in {out} (6 were there)",
    ]
    other = tmp_path / "other.png"
    make(network, whole, "--seeds=0-2,999-1001", *each, f"--grid={other}")
    assert content(out) == content(whole)
    assert grid.read_bytes() == other.read_bytes()
    if form == ".npz":
        with np.load(out) as file:
            assert file["seeds"].tolist() == [0, 1, 2, 999, 1000, 1001] * 3
            assert file["arr_1"].tolist() == [0] * 6 + [1] * 6 + [2] * 6
            assert file["arr_1"].dtype == np.int64
            assert file["files"][9] == "bee/000000/000999"
            assert (file["arr_0"].shape, file["arr_0"].dtype) == ((18, 8, 6, 1), np.uint8)
    else:
        assert open_source(out).label_names == ["ant", "bee", "cow"]


def test_a_zip_is_a_folder_in_one_file_and_an_npz_has_the_same_pixels(
    network: Path, tmp_path: Path
) -> None:
    folder, archive, arrays = (tmp_path / f"out{form}" for form in FORMS)
    said = {make(network, out, "--seeds=3-12").splitlines()[0] for out in (folder, archive, arrays)}
    assert len(said) == 1
    source, packed = open_source(folder), open_source(archive)
    assert len(source) == len(packed) == 10
    assert (list(source.left_out), list(packed.left_out)) == ([], [])
    assert packed.label_names == ["ant", "bee", "cow"]
    with np.load(arrays) as file:
        images, classes = file["arr_0"], file["arr_1"]
        assert file["seeds"].tolist() == list(range(3, 13))
    assert len(set(classes.tolist())) > 1
    for index in range(10):
        pixels, _ = source.read(index)
        again, label = packed.read(index)
        np.testing.assert_array_equal(again, pixels)
        np.testing.assert_array_equal(images[index, :, :, 0], pixels)
        assert label == classes[index]
    done = call("dataset_tool.py", "convert", f"--source={archive}", f"--dest={tmp_path / 'd.zip'}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    again = tmp_path / "more.zip"
    make(network, again, "--seeds=3-7")
    make(network, again, "--seeds=3-12", "--resume")
    assert again.read_bytes() == archive.read_bytes()
    make(network, again, "--seeds=3-12", "--guidance=0")
    assert open_source(again).read(0)[1] is None


def test_images_of_any_number_of_channels_go_into_an_npz(tmp_path: Path) -> None:
    two = write_snapshot(tmp_path / "two.safetensors", 0, channels=2, steps=4)
    for out in ("out", "out.zip"):
        done = call("generate.py", f"--network={two}", f"--outdir={tmp_path / out}")
        assert_refused(done, "PNGs have 1 or 3 channels", "have 2: give --outdir=FILE.npz")
    out, grid = tmp_path / "out.npz", tmp_path / "grid.png"
    make(two, out, "--seeds=0-4", f"--grid={grid}")
    make(two, out, "--seeds=0-6", f"--grid={grid}", "--resume")
    with np.load(out) as file:
        assert file["arr_0"].shape == (7, 8, 6, 2)
        assert "arr_1" not in file
    assert is_grid(grid)
    with PIL.Image.open(grid) as picture:
        assert picture.width > 2 * 2 * 66  # two in a row, their channels side by side


def test_another_request_is_refused_in_one_line(network: Path, tmp_path: Path) -> None:
    other = write_snapshot(tmp_path / "other.safetensors", 3, steps=4, sigma_max=40.0)
    for out in (tmp_path / "out", tmp_path / "out.zip", tmp_path / "out.npz"):
        make(network, out, "--seeds=0-2", "--class=bee")
        before = content(out)
        for words, line in (
            (["--steps=5", "--class=bee"], "sampler: steps was 4, now it is 5"),
            (["--class=cow"], "labels: --class was bee, now it is cow"),
            ([], "labels: --class was bee, now it is not given"),
            (["--class=bee", "--subdirs"], "subdirs was off, now it is on"),
            (["--class=bee", f"--network={other}"], "sampler: sigma_max was "),
        ):
            given = [f"--network={network}", f"--outdir={out}", "--seeds=0-5", "--resume", *words]
            assert_refused(call("generate.py", *given), f"{out} were made otherwise: {line}")
        assert content(out) == before
        make(network, out, "--seeds=0-3", "--class=bee", "--resume", "--batch=3")


def test_other_modes_take_folders_and_make_everything(network: Path, tmp_path: Path) -> None:
    words = ("generate.py", f"--network={network}", "--mode=denoise", "--seeds=0", "--frames=2")
    for form in (".zip", ".npz"):
        assert_refused(call(*words, f"--outdir={tmp_path / f'out{form}'}"), "give a folder")
    assert os.listdir(tmp_path) == []
    done = call(*words, f"--outdir={tmp_path}", "--resume")
    assert done.returncode == 0
    assert "warning: --resume has no effect: mode denoise does not read it, but gen" in done.stderr


def test_another_model_is_another_request_and_a_copy_is_not(network: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy.safetensors"
    make(network, out, "--seeds=0-1")
    copy.write_bytes(network.read_bytes())
    make(copy, out, "--seeds=0-2", "--resume")
    other = write_snapshot(tmp_path / "other.safetensors", 4, steps=4)
    done = call("generate.py", f"--network={other}", f"--outdir={out}", "--seeds=0-3", "--resume")
    assert_refused(done, "network was ", "now it is")


def test_files_where_nothing_can_be_written_are_refused(network: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    common = ("generate.py", f"--network={network}", "--seeds=0")
    for form in FORMS:
        bad = tmp_path / "file" / f"out{form}"
        assert_refused(call(*common, f"--outdir={bad}"), "cannot write")
    (tmp_path / "text.zip").write_text("text")
    done = call(*common, f"--outdir={tmp_path / 'text.zip'}")
    assert_refused(done, "text.zip is no zip of images that generate.py wrote", "another name")
    assert sorted(os.listdir(tmp_path)) == ["file", "text.zip"]


@contextlib.contextmanager
def disk(folder: Path, *options: str) -> Iterator[Path]:
    """A small file system."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(["size=256k", *options]), "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
def test_small_and_read_only_disks_are_found_out(network: Path, tmp_path: Path) -> None:
    common = ("generate.py", f"--network={network}")
    with disk(tmp_path / "small") as folder:
        for form in FORMS:
            done = call(*common, f"--outdir={folder / f'out{form}'}", "--seeds=0-99")
            assert_refused(done, "of free disk space, 100 images may need")
            assert not list(folder.rglob("*.png"))
        assert os.listdir(folder) == ["out"]
    with disk(tmp_path / "fixed", "ro") as folder:
        for form in FORMS:
            done = call(*common, f"--outdir={folder / f'out{form}'}", "--seeds=0")
            assert_refused(done, "cannot write", "Read-only file system")


LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of resources")
@pytest.mark.parametrize("form", ONE_FORM[1:])
def test_a_file_that_cannot_be_packed_fails_the_command_and_loses_no_image(
    form: str, network: Path, tmp_path: Path
) -> None:
    folder, limit = tmp_path / "images", tmp_path / "limit.py"
    folder.mkdir()
    limit.write_text(LIMIT)
    out = folder / f"out{form}"
    words = [f"--network={network}", f"--outdir={out}", "--seeds=0-99", "--batch=100"]
    done = run("generate.py", *words, site=limit)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: cannot write to {out}: File too large")
    assert os.listdir(folder) == [f".{out.name}.parts"]
    assert make(network, out, "--seeds=0-99", "--resume").endswith("(100 were there)\n")
    assert os.listdir(folder) == [out.name]


def test_a_write_that_fails_in_the_second_process_fails_the_command(
    network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "000005.png" / "full").mkdir(parents=True)
    done = torchrun(
        2, "generate.py", f"--network={network}", f"--outdir={out}", "--seeds=0-5", "--batch=1"
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    (line,) = {*lines} - {"error: another process of this run has failed"}  # if it had the time
    assert line == (
        f"error: cannot write to {out}: Is a directory; what is there is whole, the rest is missing"
    )
    assert "Traceback" not in done.stderr.partition("error: ")[0]
    assert "images in" not in done.stdout
    assert (out / "000000.png").exists()
    (out / "000005.png" / "full").rmdir()
    (out / "000005.png").rmdir()
    assert make(network, out, "--seeds=0-5", "--resume").endswith("were there)\n")
    assert len(content(out)) == 6


def test_images_that_are_not_finite_are_left_out_of_the_file(tmp_path: Path) -> None:
    examples = {"label_examples": [[0.0, 1.0, 2.0]], "label_dropout": 0.1}
    network = write_snapshot(tmp_path / "vectors.safetensors", 3, "vector", about=examples, steps=4)
    labels = np.ones((4, 3), dtype=np.float32)
    labels[1] = 3e38
    np.save(tmp_path / "labels.npy", labels)
    for form in (".zip", ".npz"):
        out = tmp_path / f"out{form}"
        words = (f"--network={network}", f"--outdir={out}", f"--labels={tmp_path / 'labels.npy'}")
        for more in ([], ["--resume"]):
            done = call("generate.py", *words, "--seeds=5-8", *more)
            assert done.returncode == 1
            assert "3 images in" in done.stdout
            assert "1 of 4 images are not finite, of seed 6" in done.stderr
            contents = destination_of(str(out)).packed()
            assert contents is not None
            assert contents.seeds == [5, 7, 8]
            assert contents.known_classes is None


class Terminal(io.StringIO):
    """Standard error as it is on a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_moves_within_a_batch(network: Path, tmp_path: Path) -> None:
    screen = Terminal()
    words = [f"--network={network}", f"--outdir={tmp_path}", "--seeds=0-7", "--batch=8"]
    with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(io.StringIO()):
        generate.main.main([*words, "--sampler=euler", "--steps=400"], standalone_mode=False)
    parts = [part for part in screen.getvalue().split("\r") if "/8" in part]
    found = {int(part.split("/8")[0].split()[-1]) for part in parts}
    assert len(found - {0, 8}) >= 3, found


def test_the_record_of_a_folder_is_no_image_and_no_label(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(network, out, "--seeds=0-2")
    record = json.loads((out / NAME).read_text())
    assert record["request"]["sampler"]["steps"] == 4
    assert record["request"]["labels"] == {}
    source = open_source(out)
    assert (len(source), list(source.left_out), source.label_names) == (3, [], None)
    done = call("dataset_tool.py", "convert", f"--source={out}", f"--dest={tmp_path / 'd.zip'}")
    assert (done.returncode, done.stderr) == (0, "")
