"""Classes that no image has: trained beside, not drawn from, not shown."""

from pathlib import Path

import pytest

from models.snapshot import find_snapshot, read_info
from samplers.labels import label_source
from samplers.requests import LabelWords, requests
from tests.command import run
from tests.data.files import encoded, index, random_image, write_zip
from torch_utils.errors import UserError


def gapped(path: Path) -> Path:
    """Eight pictures of the classes 0 and 2 of three."""
    files = {f"{i}.png": encoded(random_image(i, 8, 8, channels=1)) for i in range(8)}
    labels = {name: number % 2 * 2 for number, name in enumerate(files)}
    listed = index(labels, label_names=["ant", "bee", "cow"])
    return write_zip(path, files | {"dataset.json": listed})


def test_a_class_without_images_is_not_drawn(tmp_path: Path) -> None:
    done = run(
        "train.py",
        "--config=configs/digits-tiny.yaml",
        f"--data={gapped(tmp_path / 'gap.zip')}",
        f"--outdir={tmp_path / 'run'}",
        "--nosubdir",
        "data.cond=true",
        "run.batch=8",
        "run.duration=1it",
        "network.model_channels=16",
    )
    assert done.returncode == 0, done.stderr
    info = read_info(find_snapshot(tmp_path / "run"))
    assert info.model.label_dim == 3
    assert info.present_classes == [0, 2]
    done = run(
        "generate.py",
        f"--network={tmp_path / 'run'}",
        f"--outdir={tmp_path / 'out'}",
        "--seeds=0-15",
        "--steps=2",
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("classes: ")]
    words = line.removeprefix("classes: ").replace(",", "").split()
    assert words[::2] == ["ant", "cow"]
    assert sum(map(int, words[1::2])) == 16


def test_a_class_without_images_cannot_be_asked_for_and_is_none_of_each() -> None:
    source = label_source(3, "class", present=[0, 2], names=["ant", "bee", "cow"])
    images = requests([7], LabelWords(class_="each"), source)
    assert [(sample.class_index, folder) for sample, folder in images] == [(0, "ant"), (2, "cow")]
    for chosen in ("bee", "1"):
        with pytest.raises(UserError, match=f"--class={chosen}: no training image has it"):
            requests([7], LabelWords(class_=chosen), source)
