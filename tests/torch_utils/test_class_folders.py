"""Folders of classes: the names chosen for writing give the same classes in the same order back."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_utils.class_folders import class_names, folder_names, in_order


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        (["wolf", "cat"], ["0-wolf", "1-cat"]),
        (["a/b", "a_b"], ["0-a_b", "1-a_b"]),
        (["Cat", "cat"], ["0-Cat", "1-cat"]),
        (["", "cat"], ["_", "cat"]),
        ([".git", "..", "con"], ["0-_git", "1-__", "2-_con"]),
        (["0-cat", "1-dog"], ["0-0-cat", "1-1-dog"]),
        (["食べ物 food"], ["食べ物 food"]),
        (["x\x1b[31m\n"], ["x_[31m_"]),
        (
            [f"z{9 - i}" for i in range(10)] + ["a"],
            [f"{i:02d}-z{9 - i}" for i in range(10)] + ["10-a"],
        ),
    ],
)
def test_folders_carry_the_names_and_a_number_only_where_it_is_needed(names, folders):
    assert folder_names(names) == folders


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=80) | st.integers(0, 300).map(str), min_size=1, max_size=30))
def test_any_classes_come_back_in_their_order(names):
    folders = folder_names(names)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in folders}) == len(names)
    assert in_order(set(folders)) == folders
    for folder in folders:
        assert 0 < len(folder.encode()) <= 255
        assert "/" not in folder
        assert folder[0] != "."


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("abz019 -", min_size=1).map(str.strip).filter(bool), unique=True, min_size=1)
)
def test_simple_names_come_back_as_they_are(names):
    assert class_names(in_order(folder_names(names))) == names


def test_numbers_sort_as_numbers_and_names_as_text():
    assert in_order(["10", "9", "010", "2"]) == ["2", "9", "010", "10"]
    assert in_order(["10", "9", "", "2"]) == ["", "2", "9", "10"]
    assert in_order(["10", "9", "x"]) == ["10", "9", "x"]
    assert in_order(["9" * 5000, "8"]) == ["8", "9" * 5000]


def test_only_a_full_numbering_is_taken_off():
    assert class_names(["0-9", "10-19"]) == ["0-9", "10-19"]
    assert class_names(["1-cat", "2-dog"]) == ["1-cat", "2-dog"]
    assert class_names(["00-cat", "01-dog"]) == ["00-cat", "01-dog"]
    assert class_names([]) == []
