"""Numbers that YAML leaves as text, and texts that are none."""

import math

import pytest
import yaml

from torch_utils.numbers import number, with_numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("+1.5e+2", 150.0), (".5e1", 5.0), ("3.e2", 300.0),
     ("inf", math.inf), ("-inf", -math.inf), ("1e400", math.inf)],
)  # fmt: skip
def test_a_text_that_reads_as_a_number_is_one(text: str, value: float) -> None:
    assert number(text) == value
    assert isinstance(number(text), float)


@pytest.mark.parametrize(
    "text",
    ["", "e3", "1e", "1_0e3", "nan", "16", "0.5", "1e3img", "0x1e3", " 1e3", "1e3\n", "\u0661e3"],
)
def test_other_texts_stay(text: str) -> None:
    assert number(text) == text


def test_what_is_no_text_stays() -> None:
    for value in (None, True, 3, 2.5, [1]):
        assert number(value) is value


def test_a_tree_is_read_but_for_names() -> None:
    tree = yaml.safe_load("{name: 1e3, rho: 1e3, list: [1e1, {x: '16', y: edm}], flag: true}")
    assert with_numbers(tree) == {
        "name": "1e3", "rho": 1000.0, "list": [10.0, {"x": "16", "y": "edm"}], "flag": True,
    }  # fmt: skip
