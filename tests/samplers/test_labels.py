"""Labels that are asked for, and those that are drawn: the training set's, by the seed alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from samplers.generate import generate
from samplers.labels import LabelSource, label_from_text, label_source, labels_from_file
from samplers.requests import LabelWords, check_seeds, requests
from samplers.sampling import sampling_of
from samplers.settings import generation_settings
from samplers.starts import Sample
from tests.samplers.test_generate import images, model
from torch_utils.errors import UserError

EXAMPLES = torch.tensor([[0.25, -3.0, 7.5], [0.5, -3.0, 7.5], [9.0, 1.0, -1.0], [0.0, 0.0, 2.0]])
VECTORS = LabelSource(3, kind="vector", examples=EXAMPLES)


def first_labels(samples: list[Sample], source: LabelSource, batch_size: int = 64) -> torch.Tensor:
    """The labels that the network is called with, [N, 3]."""
    denoiser, seen = model(), []
    denoiser.model.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    settings = generation_settings({"name": "euler", "steps": 1})
    list(generate(sampling_of(settings, denoiser), samples, source=source, batch_size=batch_size))
    return torch.cat(seen)


def test_vectors_are_drawn_from_the_training_sets_by_the_seed_alone() -> None:
    samples = [Sample(seed) for seed in range(40)]
    found = first_labels(samples, VECTORS)
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in EXAMPLES.tolist()}
    assert torch.equal(first_labels(samples, VECTORS, batch_size=7), found)
    assert torch.equal(first_labels(samples[::-1], VECTORS), found.flip(0))
    for seed in (3, 31):  # the draw after the latent
        generator = torch.Generator().manual_seed(seed)
        torch.randn(1, 4, 6, generator=generator)
        drawn = int(torch.randint(4, (), generator=generator))
        assert torch.equal(found[seed], EXAMPLES[drawn])


def test_a_label_that_is_given_takes_no_draw_from_the_noises() -> None:
    """The same seed has the same latent and noises, whatever its label is or comes from."""
    states: list[torch.Tensor] = []
    settings = generation_settings({"name": "ddpm", "steps": 3, "grid": "rho"})
    drawn = first_labels([Sample(5)], VECTORS)[0].tolist()
    classes = LabelSource(3)
    for sample, source in [
        (Sample(5), VECTORS),
        (Sample(5, label=drawn), VECTORS),
        (Sample(5, label=drawn), LabelSource(3, kind="vector")),
        (Sample(5, class_index=1), classes),
    ]:
        seen: list[torch.Tensor] = []
        (batch,) = generate(
            sampling_of(settings, model()),
            [sample],
            source=source,
            callback=lambda i, sigma, x, d, to=seen: to.append(x - d),
        )
        states += [seen[0], batch.images]
    assert torch.equal(states[1], states[3])
    assert torch.equal(states[1], states[5])
    assert not torch.equal(states[1], states[7])


def test_classes_without_images_are_never_drawn_and_full_sets_draw_as_edm() -> None:
    samples = [Sample(seed) for seed in range(30)]
    _, everything = images(samples)
    full = label_source(3, "class", present=[0, 1, 2])
    gaps = label_source(3, "class", present=[0, 2])
    settings = generation_settings({"name": "euler", "steps": 1})
    (batch,) = generate(sampling_of(settings, model()), samples, source=full)
    assert batch.classes == everything
    (batch,) = generate(sampling_of(settings, model()), samples, source=gaps)
    assert set(batch.classes or []) == {0, 2}
    assert first_labels(samples, gaps).sum(0)[1] == 0
    (batch,) = generate(sampling_of(settings, model()), [Sample(0, 1)], source=gaps)
    assert batch.classes == [1]  # what is asked for is done


def test_a_million_classes_take_no_square_of_memory() -> None:
    rows = LabelSource(1_000_000).rows(torch.tensor([5, 999_999]))
    assert rows.shape == (2, 1_000_000)
    assert rows.sum() == rows[0, 5] + rows[1, -1] == 2


@pytest.mark.parametrize(
    ("kind", "parts", "message"),
    [
        ("class", {"present": [0, 3]}, "list of classes is damaged"),
        ("class", {"present": []}, "list of classes is damaged"),
        ("class", {"present": [True]}, "list of classes is damaged"),
        ("vector", {"examples": [[1.0, 2.0]]}, "not rows of 3 numbers"),
        ("vector", {"examples": [[1.0, 2.0, 3.0], [1.0]]}, "not rows of 3 numbers"),
        ("vector", {"examples": [[1.0, 2.0, float("nan")]]}, "not rows of 3 numbers"),
        ("multi_hot", {"examples": "abc"}, "not rows of 3 numbers"),
    ],
)
def test_a_damaged_description_of_labels_is_refused(
    kind: str, parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        label_source(3, kind, **parts)


def test_labels_are_read_from_text_and_files(tmp_path: Path) -> None:
    assert label_from_text("0.25,-3,7.5", 3) == (0.25, -3.0, 7.5)
    for text, message in [
        ("1,2", "2 numbers, the model's labels have 3"),
        ("1,2,x", "give 3 numbers"),
        ("", "give 3 numbers"),
        ("1,2,inf", "must be finite"),
    ]:
        with pytest.raises(UserError, match=message):
            label_from_text(text, 3)
    path = tmp_path / "labels.npy"
    np.save(path, np.arange(6).reshape(2, 3))
    assert labels_from_file(path, 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    np.save(path, np.array([0.5, 1.5]))
    assert labels_from_file(path, 2, 1).tolist() == [[0.5], [1.5]]


def liar(path: Path) -> None:
    """A header that promises 8 TB."""
    with open(path, "wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 1000)}
        np.lib.format.write_array_header_1_0(file, header)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"\x93NUMPY nonsense"), "not a .npy file"),
        (lambda path: path.write_bytes(b""), "not a .npy file"),
        (liar, "not a .npy file"),
        (lambda path: np.save(path, np.zeros((2, 2))), r"shape \(2, 2\), 2 seeds need \(2, 3\)"),
        (lambda path: np.save(path, np.zeros(2)), r"shape \(2,\), 2 seeds need \(2, 3\)"),
        (lambda path: np.save(path, np.full((2, 3), np.nan)), "not finite"),
        (lambda path: np.save(path, np.full((2, 3), 1e300)), "not finite"),
        (lambda path: np.save(path, np.array([["a"] * 3] * 2)), "not numbers"),
        (lambda path: np.save(path, np.array([[{}] * 3] * 2)), "not a .npy file"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_file_of_labels_that_cannot_be_used_is_one_line(
    write: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.npy"
    write(path)
    with pytest.raises(UserError, match=message):
        labels_from_file(path, 2, 3)


@pytest.mark.parametrize(
    ("words", "source", "message"),
    [
        (LabelWords(label="1,2,3"), LabelSource(3), "no label vectors"),
        (LabelWords(labels="x.npy"), LabelSource(0), "no label vectors"),
        (LabelWords(class_="1"), VECTORS, "use --label or --labels"),
        (LabelWords(tags="a"), VECTORS, "the model has no tags"),
        (LabelWords(label="1,2,3", labels="x.npy"), VECTORS, "exclude each other"),
        (LabelWords(), LabelSource(3, kind="vector"), "give --label or --labels"),
    ],
)
def test_wishes_that_the_model_does_not_have_are_refused(
    words: LabelWords, source: LabelSource, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        requests([1, 2], words, source)


def test_tags_are_drawn_unless_they_are_given() -> None:
    source = replace(VECTORS, kind="multi_hot", names=["a", "b", "c"])
    for words, label in [
        (LabelWords(), None),
        (LabelWords(tags=""), (0, 0, 0)),
        (LabelWords(tags="c,a"), (1, 0, 1)),
    ]:
        ((sample, _),) = requests([7], words, source)
        assert sample == Sample(7, label=label)
    old = LabelSource(3, kind="multi_hot")  # a snapshot without examples: no tags
    ((sample, _),) = requests([7], LabelWords(), old)
    assert sample.label == (0, 0, 0)


def test_never_a_one_hot_of_a_model_without_classes() -> None:
    with pytest.raises(UserError, match="seed 7 has no label"):
        first_labels([Sample(7)], LabelSource(3, kind="vector"))


def test_seeds_that_give_the_same_image_are_named() -> None:
    assert check_seeds(range(100)) == []
    with pytest.raises(UserError, match="seeds 3, 5 more than once"):
        check_seeds([3, 4, 5, 3, 5])
    (line,) = check_seeds([1, 2, (1 << 32) + 1, (1 << 33) + 1])
    assert line == ("seeds equal modulo 2^32 give equal images: 1 and 4294967297, 1 and 8589934593")
