"""`stats` and `check`: the numbers, and every problem in a line."""

import numpy as np
import PIL.Image
import pytest

from data.check import problems_of
from data.sources import open_source
from data.statistics import measure, report
from tests.command import assert_refused, run
from tests.data.files import encoded, index, random_image, write_folder, write_zip


def unit(image):
    return image.reshape(-1, 3) / 127.5 - 1


def test_statistics_are_those_of_all_pixels_in_model_units(tmp_path):
    images = [random_image(i, height=4 + i, width=6) for i in range(4)]
    files = {f"{i % 2}/{i}.png": encoded(image) for i, image in enumerate(images)}
    statistics = measure(open_source(write_folder(tmp_path / "s", files)))
    pixels = np.concatenate([unit(image) for image in images])
    mean, std = statistics.mean_and_std()
    np.testing.assert_allclose(mean, pixels.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=0), atol=1e-12)
    assert statistics.sigma_data() == pytest.approx(np.sqrt(pixels.var(axis=0).mean()))
    assert statistics.sizes == {(6, 4): 1, (6, 5): 1, (6, 6): 1, (6, 7): 1}
    assert statistics.classes == {0: 2, 1: 2}


def test_gray_counts_as_rgb_where_there_is_rgb(tmp_path):
    gray, colour = random_image(0, channels=1), random_image(1)
    files = {"a.png": encoded(gray), "b.png": encoded(colour)}
    statistics = measure(open_source(write_folder(tmp_path / "s", files)))
    pixels = np.concatenate([unit(np.repeat(gray[..., None], 3, axis=2)), unit(colour)])
    np.testing.assert_allclose(statistics.mean_and_std()[0], pixels.mean(axis=0), atol=1e-12)
    only = measure(open_source(write_folder(tmp_path / "t", {"a.png": encoded(gray)})))
    assert only.mean_and_std()[0].shape == (1,)


def test_the_report_names_sizes_and_classes(tmp_path):
    files = {f"{pet}/{i}.png": encoded(random_image(i)) for i, pet in enumerate(["cat", "dog"])}
    files["dog/9.png"] = encoded(random_image(9, 5, 5))
    done = run("dataset_tool.py", "stats", f"--source={write_folder(tmp_path / 's', files)}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "images: 3 (RGB)"
    assert lines[3].startswith("suggested sigma_data: 0.5")
    assert lines[4:] == [
        "sizes: 2",
        "  6x4  2",
        "  5x5  1",
        "labels: 3 images; classes: 2",
        "  1 dog  2",
        "  0 cat  1",
    ]


def test_long_histograms_are_cut_and_tags_are_counted(tmp_path):
    tags = {f"{i:02d}.png": [1, int(i < 3), 0] for i in range(30)}
    files = {name: encoded(random_image(0, 4 + i)) for i, name in enumerate(tags)}
    files["dataset.json"] = index(tags, label_names=["a", "b", "c"], label_kind="multi_hot")
    lines = list(report(measure(open_source(write_zip(tmp_path / "s.zip", files)))))
    assert "  10 more sizes, 1 to 1 images each" in lines
    assert lines[-3:] == [
        "labels: 30 images; elements that are not 0: 2",
        "  0 a  30",
        "  1 b  3",
    ]


GOOD = {f"{i}.png": encoded(random_image(i)) for i in range(4)}
CLASSES = {name: i for i, name in enumerate(GOOD)}


def problems(tmp_path, labels=None, **changes):
    files = GOOD | {f"{name[1:]}.png": content for name, content in changes.items()}
    if labels is not None:
        files["dataset.json"] = labels
    return list(problems_of(str(write_zip(tmp_path / "s.zip", files))))


def test_a_sound_dataset_has_no_problems(tmp_path):
    path = write_zip(tmp_path / "s.zip", GOOD | {"dataset.json": index(CLASSES)})
    done = run("dataset_tool.py", "check", f"--data={path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"images: 4\nlabels: 4 classes\n{path}: no problems\n"
    assert problems(tmp_path) == []


def test_every_bad_image_is_listed(tmp_path):
    found = problems(
        tmp_path,
        _1=encoded(random_image(1))[:70],
        _2=encoded(PIL.Image.new("P", (6, 4))),
        _4=encoded(random_image(4, 5)),
        _5=encoded(random_image(3)),
    )
    where = f"in {tmp_path / 's.zip'}"
    assert found[0].startswith(f"1.png {where} is damaged")
    assert found[1].startswith(f"2.png {where} has the colour mode P")
    assert found[2:] == [
        f"4.png {where} has 6x5 pixels and 3 channels, most have 6x4 pixels and 3 channels: "
        "convert with --resolution=WxH",
        f"5.png {where} has the same pixels as 3.png",
    ]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (b"{", ["not valid JSON"]),
        (index(CLASSES | {"2.png": 0.5, "3.png": -1}), ["label 0.5 of 2.png", "label -1 of 3.png"]),
        (index({"1.png": 0, "2.png": [1.0]}), ["0.png", "3.png", "2.png in .* is a vector"]),
        (index(CLASSES | {"9.png": 1}), ["has a label for '9.png', which is not there"]),
        (index(CLASSES, label_names=["a"]), ["1 label_names for 4 classes"]),
        (index(CLASSES, label_kind="multi_hot"), ["label_kind is multi_hot, but"]),
        (index(CLASSES, label_kind="tags"), ["label_kind must be one of"]),
    ],
)
def test_every_bad_label_is_listed(tmp_path, labels, expected):
    import re

    found = problems(tmp_path, labels)
    assert len(found) == len(expected)
    for line, words in zip(found, expected, strict=True):
        assert re.search(words, line), (line, words)


def test_problems_are_printed_a_line_each_with_exit_code_2(tmp_path):
    files = GOOD | {"1.png": b"x", "3.png": GOOD["0.png"]}
    path = write_zip(tmp_path / "s.zip", files)
    done = run("dataset_tool.py", "check", f"--data={path}")
    assert done.stdout.splitlines()[2:] == ["images: 4", "labels: none"]
    assert_refused(done, f"{path} has 2 problems")
    assert_refused(run("dataset_tool.py", "check", "--data=none.zip"), "has 1 problem,")
