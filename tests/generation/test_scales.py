"""Mode scales: rows of one label and seed, columns of one guidance scale."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.command import assert_refused, call, torchrun
from tests.generation.pictures import cells
from tests.test_generate_cli import write_snapshot
from torch_utils.grids import is_grid

SHAPE, CLASSES = (1, 8, 6), ["ant", "bee", "cow"]
ABOUT = {"label_dropout": 0.1}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_snapshot(folder / "cond.safetensors", 3, about=ABOUT, steps=4)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_snapshot(folder / "tags.safetensors", 3, "multi_hot", about=ABOUT, steps=4)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("models") / "un.safetensors", 0, steps=4)


def generate(network: Path, outdir: Path, *arguments: str) -> str:
    done = call("generate.py", f"--network={network}", f"--outdir={outdir}", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def image(network: Path, outdir: Path, *arguments: str) -> np.ndarray:
    """The image that mode generate makes of one seed."""
    generate(network, outdir, *arguments)
    (path,) = outdir.rglob("*.png")
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)[None]


def test_cells_are_the_images_of_their_class_and_scale(conditional: Path, tmp_path: Path) -> None:
    printed = generate(conditional, tmp_path, "--mode=scales", "--scales=0,1,3", "--batch=2")
    path = tmp_path / "scales.png"
    assert printed == f"3 rows at 3 guidance scales: {path}\n"
    assert is_grid(path)
    names = {"rows": CLASSES, "columns": ["0", "1", "3"], "title": "guidance scales, seed 0"}
    found = cells(path, SHAPE, 9, 3, **names).reshape(3, 3, *SHAPE)
    for row, name in enumerate(CLASSES):
        for column, scale in enumerate((0, 1, 3)):
            words = () if scale == 0 else (f"--class={name}",)
            arguments = ("--seeds=0", f"--guidance={scale}", *words)
            alone = image(conditional, tmp_path / f"{row}{column}", *arguments)
            assert np.abs(found[row, column].astype(int) - alone).max() <= 1, (row, column)
    assert len({cell.tobytes() for cell in found.reshape(9, -1)}) == 7  # without labels one image
    with PIL.Image.open(path) as picture:
        assert picture.text["scales"] == "0,1,3"
        assert picture.text["seeds"] == "0"


def test_scales_may_be_given_as_w_and_classes_and_seeds_chosen(
    conditional: Path, tmp_path: Path
) -> None:
    arguments = ("--mode=scales", "--scales=w=0,0.5", "--class=bee", "--seeds=3,8")
    generate(conditional, tmp_path, *arguments)
    names = {"rows": ["bee, seed 3", "bee, seed 8"], "columns": ["1", "1.5"]}
    found = cells(
        tmp_path / "scales.png", SHAPE, 4, 2, title="guidance scales, seeds 3, 8", **names
    )
    alone = image(conditional, tmp_path / "a", "--seeds=8", "--class=bee", "--guidance=1.5")
    np.testing.assert_array_equal(found[3], alone)


def test_rows_are_pairs_of_two_groups_of_tags(tagged: Path, tmp_path: Path) -> None:
    arguments = ("--mode=scales", "--scales=1,2", "--tag-groups=ant,bee:cow,")
    generate(tagged, tmp_path, *arguments)
    rows = ["ant, cow", "ant", "bee, cow", "bee"]
    names = {"rows": rows, "columns": ["1", "2"], "title": "guidance scales, seed 0"}
    found = cells(tmp_path / "scales.png", SHAPE, 8, 2, **names)
    for row, tags in enumerate(rows):
        option = f"--tags={tags.replace(', ', ',')}"
        alone = image(tagged, tmp_path / str(row), "--seeds=0", option, "--guidance=2")
        assert np.abs(found[2 * row + 1].astype(int) - alone).max() <= 1, tags


def test_a_model_without_labels_is_guided_by_another(
    unconditional: Path, conditional: Path, tmp_path: Path
) -> None:
    arguments = ("--mode=scales", "--scales=1,2", "--seeds=5")
    guide = f"--guidance-network={unconditional}"
    generate(unconditional, tmp_path, *arguments, guide)
    names = {"rows": ["seed 5"], "columns": ["1", "2"], "title": "guidance scales, seed 5"}
    found = cells(tmp_path / "scales.png", SHAPE, 2, 2, **names)
    np.testing.assert_array_equal(found[0], found[1])  # guided by itself
    generate(conditional, tmp_path, *arguments, guide)
    names["rows"] = CLASSES
    assert len(cells(tmp_path / "scales.png", SHAPE, 6, 2, **names)) == 6


def test_two_processes_make_the_same_picture(conditional: Path, tmp_path: Path) -> None:
    arguments = ("--mode=scales", "--scales=0,2", "--seeds=0-2")
    generate(conditional, tmp_path / "one", *arguments)
    files = (f"--network={conditional}", f"--outdir={tmp_path / 'two'}")
    done = torchrun(2, "generate.py", *files, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("9 rows at 2 guidance scales") == 1
    a, b = (
        np.asarray(PIL.Image.open(tmp_path / name / "scales.png")).astype(int)
        for name in ("one", "two")
    )
    assert np.abs(a - b).max() <= 1


def test_images_that_are_not_finite_leave_their_places_empty(tmp_path: Path) -> None:
    network = write_snapshot(tmp_path / "v.safetensors", 3, "vector", about=ABOUT, steps=4)
    labels = np.ones((2, 3), dtype=np.float32)
    labels[1] = 3e38
    np.save(tmp_path / "labels.npy", labels)
    done = call(
        "generate.py", f"--network={network}", f"--outdir={tmp_path}", "--mode=scales",
        "--scales=0,1", "--seeds=4-5", f"--labels={tmp_path / 'labels.npy'}",
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: 1 of 4 images are not finite (seed 5 at scale 1)")
    names = {"rows": ["seed 4", "seed 5"], "columns": ["0", "1"]}
    title = "guidance scales, seeds 4, 5"
    found = cells(tmp_path / "scales.png", SHAPE, 4, 2, title=title, **names)
    assert [int(cell.min()) == 255 for cell in found] == [False, False, False, True]


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("conditional", [], ["mode scales needs --scales"]),
        ("conditional", ["--scales=1,two"], ["1,two", "list of guidance scales"]),
        ("conditional", ["--scales=1,1.0"], ["give each scale once"]),
        ("conditional", ["--scales=1,inf"], ["scales are finite"]),
        ("conditional", ["--scales=v=1"], ["v=1", "w=0,0.5,1"]),
        ("conditional", ["--scales="], ["list of guidance scales"]),
        ("conditional", ["--scales=1,2", "--guidance=2"], ["--guidance and --scales"]),
        ("conditional", ["--scales=1,2", "--tag-groups=ant:bee"], ["the model has no tags"]),
        ("tagged", ["--scales=1,2", "--tag-groups=ant,bee"], ["two groups of tags"]),
        ("tagged", ["--scales=1,2", "--tag-groups=ant,ant:bee"], ["ant is twice"]),
        ("tagged", ["--scales=1,2", "--tag-groups=ant:bea"], ["bea", "bee"]),
        ("tagged", ["--scales=1,2", "--tag-groups=ant:bee", "--tags=cow"], ["exclude each other"]),
        ("unconditional", ["--scales=1,2"], ["needs a model with labels", "guidance network"]),
        ("unconditional", ["--scales=1"], ["needs a model with labels", "--guidance-network"]),
        ("conditional", ["--scales=1,2", "--outdir=a.npz"], ["a.npz", "give a folder"]),
    ],
)
def test_bad_input_is_one_line(
    model: str,
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    files = (f"--network={request.getfixturevalue(model)}", f"--outdir={tmp_path / 'o'}")
    done = call("generate.py", *files, "--mode=scales", *arguments)
    assert_refused(done, *words)
    assert not (tmp_path / "o").exists()


def test_the_mode_has_a_seed_of_its_own_and_other_modes_say_that_they_do_not_read_its_options(
    conditional: Path, tmp_path: Path
) -> None:
    files = (f"--network={conditional}", f"--outdir={tmp_path}")
    done = call("generate.py", *files, "--seeds=0", "--scales=1,2")
    assert done.returncode == 0
    assert "--scales has no effect: mode generate does not read it, but scales does" in done.stderr
