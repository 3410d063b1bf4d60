"""What a snapshot stores of its training set's labels."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from models.snapshot import find_snapshot, read_info
from tests.command import run
from training.labels import MAX_EXAMPLES, MAX_NUMBERS, label_examples


def test_examples_are_labels_of_the_set_and_survive_json() -> None:
    labels = torch.randn(50, 3)
    found = json.loads(json.dumps(label_examples(labels, "vector")))
    assert torch.equal(torch.tensor(found).sort(0).values, labels.sort(0).values)
    assert found == label_examples(labels, "vector")
    assert len(str(found[0][0])) < 16  # not the 17 digits of a float64


def test_examples_are_some_of_many_spread_over_the_set() -> None:
    labels = torch.arange(5000.0)[:, None].repeat(1, 2)
    found = torch.tensor(label_examples(labels, "vector"))
    assert found.shape == (MAX_EXAMPLES, 2)
    assert len(found[:, 0].unique()) == MAX_EXAMPLES
    assert abs(float(found.mean()) - 2500) < 150
    wide = label_examples(torch.zeros(40, MAX_NUMBERS // 10), "multi_hot")
    assert wide is not None
    assert len(wide) == 10


def test_classes_need_no_examples() -> None:
    assert label_examples(torch.arange(10), "class") is None
    assert label_examples(None, None) is None


def test_a_run_stores_labels_of_its_data_and_that_there_was_no_label_dropout(
    tmp_path: Path,
) -> None:
    """Continuous labels, from a folder to the snapshot."""
    folder, labels = tmp_path / "data", {}
    folder.mkdir()
    for index in range(8):
        pixels = np.full((8, 8), 30 * index, dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
        labels[f"{index}.png"] = [index / 8, -3.0, 7.1]
    (folder / "dataset.json").write_text(json.dumps({"labels": list(labels.items())}))
    done = run(
        *("train.py", "--config=configs/digits-tiny.yaml", f"--data={folder}", "data.max_size=8"),
        *("--cond=1", "--batch=8", "--duration=1it", f"--outdir={tmp_path / 'run'}", "--nosubdir"),
    )
    assert done.returncode == 0, done.stderr
    info = read_info(find_snapshot(tmp_path / "run"))
    assert info.label_kind == "vector"
    assert sorted(info.label_examples or []) == sorted(labels.values())
    assert info.label_dropout == 0.0
