"""What a snapshot stores of its training set's labels."""

import json

import torch

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
