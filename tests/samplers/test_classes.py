"""Classes by name and by number, and the folders that they have."""

import unicodedata

import pytest

from samplers.classes import class_folders, class_number
from torch_utils.errors import UserError

ACCENT = unicodedata.normalize("NFC", "Übung")


@pytest.mark.parametrize(
    ("chosen", "names", "expected"),
    [
        ("1", [], 1),
        ("1", ["cat", "dog", "2"], 1),
        ("2", ["2", "cat", "dog"], 0),
        ("02", ["cat", "dog", "fox"], 2),
        ("10", ["1", "2", "10"], 2),
        (unicodedata.normalize("NFD", ACCENT), ["a", ACCENT, "b"], 1),
        (ACCENT, ["a", "b", unicodedata.normalize("NFD", ACCENT)], 2),
    ],
)
def test_a_name_is_looked_up_before_a_number(chosen: str, names: list[str], expected: int) -> None:
    assert class_number(chosen, names, 3) == expected


@pytest.mark.parametrize(
    ("chosen", "names", "message"),
    [
        ("3", [], "class 3 is out of range: the model has 0 to 2"),
        ("9" * 5000, ["a", "b", "c"], "is out of range"),
        ("0", ["1", "2", "10"], "no class is named 0: the class names are numbers, 1, 2, 10"),
        ("dgo", ["cat", "dog", "fox"], "unknown class 'dgo': did you mean 'dog'"),
        ("²", ["cat", "dog", "fox"], "unknown class"),
    ],
)
def test_what_no_class_is_called_is_refused(chosen: str, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        class_number(chosen, names, 3)


def test_folders_of_classes_carry_their_names_and_keep_their_order() -> None:
    assert class_folders([0, 2], ["cat", "dog", "fox"]) == {0: "cat", 2: "fox"}
    assert class_folders([0, 1], ["wolf", "a/b"]) == {0: "0-wolf", 1: "1-a_b"}
    numbered = class_folders(range(11), [])
    assert numbered == {index: str(index) for index in range(11)}
